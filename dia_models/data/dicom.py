"""DICOM files: one frame, seen through the window that the file asks for, as 8-bit gray or color."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from dia_models.data.warn_once import warn_once

SUFFIXES = frozenset({".dcm", ".dicom"})
DIRECTORY = "dicomdir"  # the index of a disk: it has the letters of a DICOM file, and no image
PREAMBLE, MAGIC = 128, b"DICM"
LARGEST_BYTES = 2**29
GRAY, COLOR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
Gray = UInt8[np.ndarray, "height width"]
Values = Shaped[np.ndarray, "height width"]


class DicomError(ValueError):
    """The file cannot be read; the message is the reason, in one line."""


def is_dicom(path: Path) -> bool:
    """Whether a file is to be read as DICOM: by its name, or by the letters at byte 128."""
    return path.suffix.lower() in SUFFIXES or has_magic(path)


def has_magic(path: Path) -> bool:
    """Whether the letters DICM are where a DICOM file has them."""
    with path.open("rb") as file:
        return file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC


def dicom_size(path: Path) -> tuple[int, int]:
    """Height and width, without reading the pixels. Raises DicomError."""
    return _size(_open(path, pixels=False))


def read_dicom(path: Path, largest_pixels: int) -> tuple[Gray | UInt8[np.ndarray, "height width 3"], str]:
    """Read a file of one frame as bytes, and what was done to its values, in words.

    Gray values go through the file's modality transform (rescale slope or table), then through its first VOI window
    or table, whose range becomes 0 to 255; MONOCHROME1, where small values are bright, is inverted after that. Without
    window or table, values of at most 8 bits keep their range, and others are scaled from the smallest to the largest.
    Padding (PixelPaddingValue, to PixelPaddingRangeLimit) counts for neither and is black.
    Raises DicomError for what is no DICOM file, has no pixels, several frames, too many pixels, values of another
    kind, or a compression that cannot be read here.
    """
    dataset = _open(path, pixels=True)
    height, width = _size(dataset)
    if height * width > largest_pixels:
        raise DicomError(f"{width}x{height} pixels are too many")
    if (frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
        raise DicomError(f"a DICOM file of {frames} frames; one is accepted")
    kind = str(dataset.get("PhotometricInterpretation", "none"))
    if kind not in GRAY + COLOR:
        raise DicomError(f"DICOM values of the kind {kind}; accepted: {', '.join(GRAY + COLOR)}")
    stored = _pixels(dataset)
    if dataset.get("HighBit") not in (None, dataset.BitsStored - 1):
        raise DicomError(f"values of {dataset.BitsStored} bits up to bit {dataset.HighBit}; the lowest are accepted")
    if kind in COLOR:
        return _color(stored), "colors as stored"
    if stored.ndim != 2:
        raise DicomError(f"gray values of shape {stored.shape}; one value a pixel is accepted")
    padding = _padding(stored, dataset)
    gray, done = _apply_window(stored, padding, dataset)
    inverted = kind == "MONOCHROME1"
    words = [done, *["inverted (MONOCHROME1)"][: int(inverted)]]
    if padding.any():
        words.append(f"{padding.mean():.1%} padding (PixelPaddingValue {dataset.PixelPaddingValue}) black")
    return np.where(padding, np.uint8(0), 255 - gray if inverted else gray), "; ".join(words)


def _open(path: Path, *, pixels: bool) -> Any:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise DicomError("reading DICOM needs the package pydicom: pip install 'dia-analysis[medical]'") from error
    if path.stat().st_size > LARGEST_BYTES:
        raise DicomError(f"a DICOM file of more than {LARGEST_BYTES >> 20} MiB")
    try:
        _refuse_deflated(path)
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
    except InvalidDicomError as error:
        raise DicomError("not a DICOM file: the letters DICM are missing at byte 128") from error
    if "Rows" not in dataset or "Columns" not in dataset or (pixels and "PixelData" not in dataset):
        raise DicomError("a DICOM file without pixel data")
    return dataset


def _refuse_deflated(path: Path) -> None:
    """Raise DicomError for a file that unpacks to an unknown size as soon as it is opened."""
    from pydicom.filereader import read_file_meta_info

    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax is not None and syntax.is_deflated:
        raise DicomError(f"its compression ({syntax.name}) is not accepted; store it without")


def _size(dataset: Any) -> tuple[int, int]:
    return int(dataset.Rows), int(dataset.Columns)


def _pixels(dataset: Any, **options: Any) -> np.ndarray:
    """The stored values, colors as RGB."""
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        return np.asarray(pixel_array(dataset, **options))
    except Exception as error:  # decoders raise almost anything
        if syntax is not None and syntax.is_compressed:
            raise DicomError(
                f"its compression ({syntax.name}) cannot be read here; store it without, or install pylibjpeg"
            ) from error
        raise DicomError(f"its pixel data are damaged: {error}") from error


def _color(stored: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    if stored.dtype != np.uint8 or stored.ndim != 3 or stored.shape[2] != 3:
        raise DicomError(
            f"colors of {stored.dtype} and shape {stored.shape}; 8 bits of red, green and blue are accepted"
        )
    return stored


def _padding(stored: Values, dataset: Any) -> Bool[np.ndarray, "height width"]:
    """Which pixels only fill the frame. Raises DicomError if all do."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = np.array([value, value if limit is None else limit], dtype=np.int64)
    if not dataset.PixelRepresentation and ends.max() >= 2**dataset.BitsStored:
        stored = _pixels(dataset, correct_unused_bits=False)  # padding of 16 bits among values of 12
    low, high = sorted(ends.astype(stored.dtype).tolist())  # -2000 is also written as 63536
    padding = (stored >= low) & (stored <= high)
    if padding.all():
        raise DicomError(f"every pixel is padding (PixelPaddingValue {value})")
    return np.asarray(padding)


def _apply_window(stored: Values, padding: Bool[np.ndarray, "height width"], dataset: Any) -> tuple[Gray, str]:
    """The values through the file's transforms, from 0 to 255, and these in words."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    for tag in ("RescaleSlope", "RescaleIntercept"):
        if dataset.get(tag, 0) is None:  # a tag without a value says as much as none
            delattr(dataset, tag)
    modality, voi = (_table(dataset, f"{kind}LUTSequence") for kind in ("Modality", "VOI"))
    with np.errstate(over="ignore", invalid="ignore"):  # checked in the next line
        values = apply_modality_lut(stored if modality is None else _whole(stored, modality), dataset)
    _check_finite("rescale slope or intercept", [values.min(), values.max()])
    before = "" if modality is None else "modality table, "
    slope, intercept = (dataset.get(f"Rescale{name}", usual) for name, usual in (("Slope", 1), ("Intercept", 0)))
    if modality is None and (float(slope), float(intercept)) != (1, 0):
        before = f"rescale slope {float(slope):g} and intercept {float(intercept):g}, "
    if voi is not None:
        ends = apply_voi_lut(np.arange(voi.start, voi.stop), dataset)
        values, done = apply_voi_lut(_whole(values, voi), dataset), "VOI table"
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        _check_finite("window", [*np.ravel(dataset.WindowCenter), *np.ravel(dataset.WindowWidth)])
        _say_several(dataset["WindowCenter"].VM)
        ends = apply_voi_lut(np.array([-np.inf, np.inf]), dataset)
        values = apply_voi_lut(values, dataset)
        center, width = (np.ravel(dataset[f"Window{name}"].value)[0] for name in ("Center", "Width"))
        done = f"window center {float(center):g}, width {float(width):g}"
    elif modality is None and stored.dtype.kind == "u" and dataset.BitsStored <= 8:
        ends, done = apply_modality_lut(np.array([0, 2**dataset.BitsStored - 1]), dataset), "range as stored"
    else:
        ends = values[~padding]
        done = f"no window: from {ends.min():g} (black) to {ends.max():g} (white)"
    return _rescale(values, float(ends.min()), float(ends.max())), before + done


def _table(dataset: Any, sequence: str) -> range | None:
    """The values that the file's first table of a kind takes, made ready for pydicom; None if it has none.

    Files pack entries of 8 bits two to a word, and write negative first values as unsigned ones. pydicom counts
    entries in as many bits as the results have (of 4096 entries of 8 bits it sees 256), so they are declared as 16.
    Raises DicomError for a table with fewer entries than it declares.
    """
    tables = dataset.get(sequence) or [{}]
    table = tables[0]
    if table.get("LUTDescriptor") is None or table.get("LUTData") is None:
        return None
    _say_several(len(tables))
    entries, first, _ = map(int, table.LUTDescriptor)
    entries = entries or 2**16
    data = table.LUTData
    if isinstance(data, bytes) and entries <= len(data) <= entries + 1:
        data = list(data)
        table.add_new("LUTData", "US", data)
    if (found := len(data) // 2 if isinstance(data, bytes) else np.size(data)) < entries:
        raise DicomError(f"its {sequence} has {found} of the {entries} entries that it declares")
    if first >= 2**15 and (dataset.PixelRepresentation or (dataset.get("RescaleIntercept") or 0) < 0):
        first -= 2**16
    table.add_new("LUTDescriptor", "SL", [entries % 2**16, first, 16])  # as SL, any first value is taken
    return range(first, first + entries)


def _say_several(count: int) -> None:
    if count > 1:
        warn_once("a DICOM file has several windows or tables; of each such file the first is used")


def _whole(values: Values, takes: range) -> Values:
    """The values as whole numbers that a table has an entry for."""
    return np.asarray(np.rint(np.clip(values, takes.start, takes.stop - 1)), dtype=np.int32)


def _check_finite(what: str, values: list[Any]) -> None:
    if not np.isfinite(np.array(values, dtype=np.float64)).all():
        raise DicomError(f"its {what} is not a finite number")


def _rescale(values: Values, low: float, high: float) -> Gray:
    """Values from `low` (0) to `high` (255); a constant is black."""
    shares = (values.astype(np.float64) - low) / ((high - low) or 1.0)
    return np.asarray(np.rint(255 * np.clip(shares, 0, 1)), dtype=np.uint8)
