"""DICOM files: one frame, seen through the window that the file asks for, as 8-bit grey or colour."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

SUFFIX = ".dcm"
PREAMBLE, MAGIC = 128, b"DICM"
LARGEST_BYTES = 2**29
GREY, COLOUR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
SURE = 20.0  # widths of a window from its centre where even a sigmoid has reached its end
Grey = UInt8[np.ndarray, "height width"]


class DicomError(ValueError):
    """The file cannot be read; the message is the reason, in one line."""


def is_dicom(path: Path) -> bool:
    """Whether a file is to be read as DICOM: by its name, or by the letters at byte 128."""
    return path.suffix.lower() == SUFFIX or has_magic(path)


def has_magic(path: Path) -> bool:
    """Whether the letters DICM are where a DICOM file has them."""
    with path.open("rb") as file:
        return file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC


def dicom_size(path: Path) -> tuple[int, int]:
    """Height and width, without reading the pixels. Raises DicomError."""
    return _size(_open(path, pixels=False))


def read_dicom(path: Path, largest_pixels: int) -> Grey | UInt8[np.ndarray, "height width 3"]:
    """Read a file of one frame as bytes.

    Grey values go through the file's modality transform (rescale slope or table), then through its first VOI window
    or table, whose range becomes 0 to 255; MONOCHROME1, where small values are bright, is inverted after that. Without
    window or table, 8-bit values stay as they are, and others are scaled from the smallest to the largest.
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
    if kind not in GREY + COLOUR:
        raise DicomError(f"DICOM values of the kind {kind}; accepted: {', '.join(GREY + COLOUR)}")
    stored = _pixels(dataset)
    if kind in COLOUR:
        return _colour(stored)
    grey = _windowed(stored, dataset)
    return 255 - grey if kind == "MONOCHROME1" else grey


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


def _pixels(dataset: Any) -> np.ndarray:
    """The stored values, colours as RGB."""
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        return np.asarray(pixel_array(dataset))
    except Exception as error:  # decoders raise almost anything
        if syntax is not None and syntax.is_compressed:
            raise DicomError(
                f"its compression ({syntax.name}) cannot be read here; store it without, or install pylibjpeg"
            ) from error
        raise DicomError(f"its pixel data are damaged: {' '.join(str(error).split())}") from error


def _colour(stored: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    if stored.dtype != np.uint8 or stored.ndim != 3 or stored.shape[2] != 3:
        raise DicomError(
            f"colours of {stored.dtype} and shape {stored.shape}; 8 bits of red, green and blue are accepted"
        )
    return stored


def _windowed(stored: np.ndarray, dataset: Any) -> Grey:
    """The values through the file's transforms, from 0 to 255."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    if stored.ndim != 2:
        raise DicomError(f"grey values of shape {stored.shape}; one value a pixel is accepted")
    values = apply_modality_lut(stored, dataset)
    if (ends := _range(dataset)) is not None:
        return _scaled(apply_voi_lut(values, dataset), *ends)
    if values.dtype == np.uint8:
        return np.asarray(values)
    return _scaled(values, float(values.min()), float(values.max()))


def _range(dataset: Any) -> tuple[float, float] | None:
    """What the file's first VOI table or window gives at its ends; None if it has neither."""
    from pydicom.pixels.processing import apply_windowing

    if tables := dataset.get("VOILUTSequence"):
        data = np.asarray(tables[0].LUTData, dtype=np.float64)
        return float(data.min()), float(data.max())
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return None
    centre, width = (float(np.atleast_1d(dataset[key].value)[0]) for key in ("WindowCenter", "WindowWidth"))
    low, high = apply_windowing(np.array([centre - SURE * width, centre + SURE * width]), dataset)
    return float(low), float(high)


def _scaled(values: np.ndarray, low: float, high: float) -> Grey:
    """Values from `low` (0) to `high` (255); a constant is black."""
    shares: Float[np.ndarray, "height width"] = (values.astype(np.float64) - low) / ((high - low) or 1.0)
    return np.asarray(np.rint(255 * np.clip(shares, 0, 1)), dtype=np.uint8)
