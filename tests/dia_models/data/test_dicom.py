"""DICOM files: each kind gives the bytes worked out by hand, and what cannot be read gives one clear line."""

import json
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from dia_models import ModelInputError
from dia_models.data import open_data, open_files
from dia_models.data.chest_xray import colorfulness
from dia_models.data.decode import UnreadableImageError, image_size, read_image
from tests.support.commands import analyze, failure, train
from tests.support.xray_data import chest_xray, network

ROWS = np.array([[0, 100, 200], [50, 150, 250]], dtype=np.uint8)


def dicom(path, values=ROWS, kind="MONOCHROME2", *, syntax=ExplicitVRLittleEndian, **tags):
    """Write a DICOM file; a tag given as None is left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), syntax
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Rows, file.Columns = values.shape[:2]
    file.SamplesPerPixel = 1 if values.ndim == 2 else 3
    if values.ndim == 3:
        file.PlanarConfiguration = 0
    file.PhotometricInterpretation = kind
    file.BitsAllocated = file.BitsStored = 8 * values.itemsize
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = int(values.dtype.kind == "i")
    file.PixelData = values.tobytes()
    for tag, value in tags.items():
        if value is None:
            delattr(file, tag)
        else:
            setattr(file, tag, value)
    file.save_as(path)
    return path


FIVE = np.array([[0, 1, 2, 3, 9]], dtype=np.uint16)


def table(entries, *, first=0, bits=16, kind="US"):
    """A lookup table: its entries as numbers (US), as bytes (OW), or as bytes two to a word (packed)."""
    entries, made = list(entries), Dataset()
    made.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    packed = bytes(entries) if kind == "packed" else np.array(entries, dtype="<u2").tobytes()
    made.add_new("LUTData", "US" if kind == "US" else "OW", entries if kind == "US" else packed)
    return made


def grey(path):
    return read_image(path, None, 1)[..., 0].tolist()


def test_8_bits_without_a_window_stay_as_they_are(tmp_path):
    assert grey(dicom(tmp_path / "a.dcm")) == ROWS.tolist()
    assert read_image(tmp_path / "a.dcm", None, 3)[1, 2].tolist() == [250] * 3
    assert read_image(tmp_path / "a.dcm", (4, 4), 1).shape == (4, 4, 1)
    assert image_size(tmp_path / "a.dcm") == (2, 3)


def test_16_bits_without_a_window_are_scaled_from_smallest_to_largest(tmp_path):
    values = np.array([[1000, 2000], [3000, 5000]], dtype=np.uint16)
    assert grey(dicom(tmp_path / "a.dcm", values)) == [[0, 64], [128, 255]]
    assert grey(dicom(tmp_path / "b.dcm", np.full((2, 2), 7, np.uint16))) == [[0, 0], [0, 0]]


def test_8_bits_through_a_rescale_slope_keep_their_range(tmp_path):
    """Values from 20 to 145 are not stretched, nor are they upside down; a tag without a value counts for nothing."""
    values = ROWS // 2 + np.uint8(20)
    path = dicom(tmp_path / "a.dcm", values, RescaleSlope=1, RescaleIntercept=0)
    assert grey(path) == values.tolist()
    assert grey(dicom(tmp_path / "b.dcm", values, RescaleSlope=-1, RescaleIntercept=255)) == (255 - values).tolist()
    file = pydicom.dcmread(path)
    file.RescaleSlope = file.RescaleIntercept = None
    file.save_as(path)
    assert grey(path) == values.tolist()


def test_a_window_is_applied_and_its_range_becomes_0_to_255(tmp_path):
    """Centre 1000.5 and width 201 go from 900 (black) to 1100 (white): 1000 is in the middle."""
    values = np.array([[0, 900, 950], [1000, 1100, 4000]], dtype=np.uint16)
    path = dicom(tmp_path / "a.dcm", values, WindowCenter=1000.5, WindowWidth=201)
    assert grey(path) == [[0, 0, 64], [128, 255, 255]]


def test_a_window_that_the_values_do_not_fill_does_not_stretch_them(tmp_path):
    """Values 40 to 60 in a window from 0 to 100 stay in the middle."""
    values = np.array([[40, 50, 60]], dtype=np.uint16)
    path = dicom(tmp_path / "a.dcm", values, WindowCenter=50.5, WindowWidth=101)
    assert grey(path) == [[102, 128, 153]]


def test_of_several_windows_the_first_counts(tmp_path):
    values = np.array([[0, 50, 100, 1000]], dtype=np.uint16)
    path = dicom(tmp_path / "a.dcm", values, WindowCenter=[50.5, 500], WindowWidth=[101, 1000])
    with pytest.warns(UserWarning, match="several windows or tables; of each such file the first is used"):
        assert grey(path) == [[0, 128, 255, 255]]


def test_monochrome1_is_inverted_after_the_window(tmp_path):
    values = np.array([[0, 900, 950], [1000, 1100, 4000]], dtype=np.uint16)
    window = {"WindowCenter": 1000.5, "WindowWidth": 201}
    assert grey(dicom(tmp_path / "a.dcm", values, "MONOCHROME1", **window)) == [[255, 255, 191], [127, 0, 0]]
    assert grey(dicom(tmp_path / "b.dcm", kind="MONOCHROME1")) == (255 - ROWS).tolist()


def test_the_rescale_slope_comes_before_the_window(tmp_path):
    """2 v - 100: 0, 50, 100 become -100, 0, 100; the window goes from -100 to 100."""
    values = np.array([[0, 50, 100]], dtype=np.uint16)
    tags = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 0.5, "WindowWidth": 201}
    assert grey(dicom(tmp_path / "a.dcm", values, **tags)) == [[0, 128, 255]]


def test_signed_values_and_a_sigmoid_window(tmp_path):
    values = np.array([[-1000, 0, 1000]], dtype=np.int16)
    tags = {"WindowCenter": 0, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"}
    assert grey(dicom(tmp_path / "a.dcm", values, **tags)) == [[0, 128, 255]]


def test_a_voi_table_is_looked_up(tmp_path):
    path = dicom(tmp_path / "a.dcm", FIVE, VOILUTSequence=[table([0, 10, 40, 100])])
    assert grey(path) == [[0, 26, 102, 255, 255]]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("kind", ["US", "OW"])
def test_a_table_may_be_numbers_or_bytes(tmp_path, kind, syntax):
    path = dicom(tmp_path / "a.dcm", FIVE, syntax=syntax, VOILUTSequence=[table([0, 10, 40, 100], kind=kind)])
    assert grey(path) == [[0, 26, 102, 255, 255]]


@pytest.mark.parametrize("kind", ["US", "OW", "packed"])
def test_a_table_of_more_entries_than_8_bits_count(tmp_path, kind):
    """4096 entries of 8 bits: value v becomes v / 16."""
    values = np.array([[0, 160, 320, 4095]], dtype=np.uint16)
    entries = [v // 16 for v in range(4096)]
    path = dicom(tmp_path / "a.dcm", values, VOILUTSequence=[table(entries, bits=8, kind=kind)])
    assert grey(path) == [[0, 10, 20, 255]]


def test_a_table_may_begin_below_zero(tmp_path):
    values = np.array([[-1000, -2, -1, 0, 1, 1000]], dtype=np.int16)
    for name, first in (("a.dcm", -2), ("b.dcm", 65_534)):
        path = dicom(tmp_path / name, values, VOILUTSequence=[table([0, 10, 40, 100], first=first)])
        assert grey(path) == [[0, 0, 26, 102, 255, 255]]


def test_a_table_of_unsigned_values_may_begin_below_zero_through_an_intercept(tmp_path):
    tags = {"RescaleSlope": 1, "RescaleIntercept": -2, "VOILUTSequence": [table([0, 10, 40, 100], first=65_534)]}
    assert grey(dicom(tmp_path / "a.dcm", FIVE, syntax=ImplicitVRLittleEndian, **tags)) == [[0, 26, 102, 255, 255]]


def test_a_table_may_have_an_entry_for_each_16_bit_value(tmp_path):
    """The number of entries, 65536, is written as 0; nothing is warned of."""
    whole = table([0], kind="OW")
    whole.add_new("LUTDescriptor", "US", [0, 0, 16])
    whole.add_new("LUTData", "OW", np.arange(2**16, dtype="<u2").tobytes())
    values = np.array([[0, 13_107, 65_535]], dtype=np.uint16)
    assert grey(dicom(tmp_path / "a.dcm", values, VOILUTSequence=[whole])) == [[0, 51, 255]]


def test_of_several_tables_the_first_counts(tmp_path):
    tables = [table([0, 10, 40, 100]), table([100, 40, 10, 0])]
    with pytest.warns(UserWarning, match="several windows or tables"):
        assert grey(dicom(tmp_path / "a.dcm", FIVE, VOILUTSequence=tables)) == [[0, 26, 102, 255, 255]]


def test_values_through_a_rescale_slope_are_looked_up(tmp_path):
    tags = {"RescaleSlope": 0.5, "RescaleIntercept": 0, "VOILUTSequence": [table([0, 10, 40, 100])]}
    assert grey(dicom(tmp_path / "a.dcm", FIVE * np.uint16(2), **tags)) == [[0, 26, 102, 255, 255]]


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("stored", [np.uint8, np.uint16])
def test_a_modality_table_comes_before_the_window(tmp_path, stored, bits):
    """0, 1, 2, 3 and more become 0, 50, 100, 200; the window goes from 0 to 100."""
    tags = {"ModalityLUTSequence": [table([0, 50, 100, 200], bits=bits)], "WindowCenter": 50.5, "WindowWidth": 101}
    assert grey(dicom(tmp_path / "a.dcm", FIVE.astype(stored), **tags)) == [[0, 128, 255, 255, 255]]


def test_a_table_that_ends_early_says_so_in_a_short_line(tmp_path):
    for name, kind, entries in (("a.dcm", "OW", bytes(5_000)), ("b.dcm", "US", [0] * 2_500)):
        short = table([0] * 4096)
        short.add_new("LUTData", kind, entries)
        path = dicom(tmp_path / name, FIVE, VOILUTSequence=[short])
        assert reason(path) == "its VOILUTSequence has 2500 of the 4096 entries that it declares"


def test_values_that_are_not_in_the_lowest_bits_are_refused(tmp_path):
    path = dicom(tmp_path / "a.dcm", FIVE * np.uint16(16), BitsStored=12, HighBit=15)
    assert "values of 12 bits up to bit 15" in reason(path)


def test_padding_counts_for_nothing_and_is_black(tmp_path):
    """12-bit values from 1000 to 3000 among padding of 65535, which has more than 12 bits."""
    values = np.array([[65_535, 1000, 2000], [3000, 1500, 65_535]], dtype=np.uint16)
    tags = {"BitsStored": 12, "HighBit": 11, "PixelPaddingValue": 65_535}
    assert grey(dicom(tmp_path / "a.dcm", values, **tags)) == [[0, 0, 128], [255, 64, 0]]
    assert grey(dicom(tmp_path / "b.dcm", values, "MONOCHROME1", **tags)) == [[0, 255, 127], [0, 191, 0]]
    window = {"WindowCenter": 2000.5, "WindowWidth": 2001}
    assert grey(dicom(tmp_path / "c.dcm", values, **tags, **window)) == [[0, 0, 128], [255, 64, 0]]


def test_a_range_of_padding_counts_for_nothing(tmp_path):
    values = np.array([[0, 10, 20, 1000, 3000]], dtype=np.uint16)
    for low, high in ((0, 20), (20, 0)):
        path = dicom(tmp_path / "a.dcm", values, PixelPaddingValue=low, PixelPaddingRangeLimit=high)
        assert grey(path) == [[0, 0, 0, 0, 255]]


def test_padding_below_zero_may_be_written_as_a_large_number(tmp_path):
    values = np.array([[-2000, -1000, 0, 1000]], dtype=np.int16)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -5}
    assert grey(dicom(tmp_path / "a.dcm", values, PixelPaddingValue=-2000, **tags)) == [[0, 0, 128, 255]]
    file = pydicom.dcmread(tmp_path / "a.dcm")
    file.add_new("PixelPaddingValue", "US", 63_536)
    file.save_as(tmp_path / "b.dcm")
    assert grey(tmp_path / "b.dcm") == [[0, 0, 128, 255]]


def test_padding_that_does_not_occur_changes_nothing(tmp_path):
    assert grey(dicom(tmp_path / "a.dcm", PixelPaddingValue=7)) == ROWS.tolist()


def test_signed_values_without_a_window_are_scaled_from_smallest_to_largest(tmp_path):
    for kind in (np.int8, np.int16):
        assert grey(dicom(tmp_path / "a.dcm", np.array([[-100, 0, 100]], dtype=kind))) == [[0, 128, 255]]


def test_values_of_few_bits_keep_their_range(tmp_path):
    """4 bits go from 0 (black) to 15 (white), also if no pixel is black or white; 8 bits in 16 are 8 bits."""
    few = np.array([[1, 3, 12]], dtype=np.uint8)
    assert grey(dicom(tmp_path / "a.dcm", few, BitsStored=4, HighBit=3)) == [[17, 51, 204]]
    wide = np.array([[10, 50, 200]], dtype=np.uint16)
    assert grey(dicom(tmp_path / "b.dcm", wide, BitsStored=8, HighBit=7)) == [[10, 50, 200]]


def test_12_bits_through_a_window_in_an_implicit_file(tmp_path):
    values = np.array([[0, 1024, 2048, 4095]], dtype=np.uint16)
    tags = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
    assert grey(dicom(tmp_path / "a.dcm", values, syntax=ImplicitVRLittleEndian, **tags)) == [[0, 64, 128, 255]]


def test_colours_are_kept(tmp_path):
    values = np.array([[[255, 0, 0], [0, 255, 0]]], dtype=np.uint8)
    path = dicom(tmp_path / "a.dcm", values, "RGB")
    assert read_image(path, None, 3).tolist() == values.tolist()
    assert grey(path) == [[76, 150]]


def test_run_lengths_are_unpacked(tmp_path):
    file = pydicom.dcmread(dicom(tmp_path / "a.dcm"))
    file.compress(RLELossless)
    file.save_as(tmp_path / "a.dcm")
    assert grey(tmp_path / "a.dcm") == ROWS.tolist()


def test_files_are_known_by_their_name_or_by_what_is_in_them(tmp_path):
    for name in ("a.dcm", "B.DCM", "study", "1.2.840.113", "c.png", "d.dicom", "E.Dicom", "DICOMDIR", ".f.dcm"):
        dicom(tmp_path / name)
    (tmp_path / "README").write_text("no image")
    (tmp_path / "notes.1").write_text("no image")
    found = open_files([tmp_path])
    assert [path.name for path in found.paths] == [
        "1.2.840.113",
        "B.DCM",
        "E.Dicom",
        "a.dcm",
        "c.png",
        "d.dicom",
        "study",
    ]
    for path in found.paths:
        assert grey(path) == ROWS.tolist()


def reason(path):
    with pytest.raises(UnreadableImageError) as caught:
        read_image(path, (8, 8), 1)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) <= 200
    return str(caught.value)


def test_what_cannot_be_read_says_why(tmp_path):
    path = tmp_path / "a.dcm"
    assert reason(dicom(path, PixelData=None)) == "a DICOM file without pixel data"
    (tmp_path / "b.dcm").write_bytes(b"no image")
    assert reason(tmp_path / "b.dcm") == "not a DICOM file: the letters DICM are missing at byte 128"
    assert reason(dicom(path, NumberOfFrames=3)) == "a DICOM file of 3 frames; one is accepted"
    assert reason(dicom(path, kind="PALETTE COLOR")).startswith("DICOM values of the kind PALETTE COLOR; accepted: ")
    assert reason(dicom(path, Rows=30_000, Columns=30_000)) == "30000x30000 pixels are too many"
    assert reason(dicom(path, PixelData=b"\0\0")).startswith("its pixel data are damaged: ")
    assert reason(dicom(path, np.full((2, 2), 7, np.uint16), PixelPaddingValue=7)).startswith("every pixel is padding")
    assert "Window Width must be" in reason(dicom(path, FIVE, WindowCenter=5, WindowWidth=0))
    assert reason(dicom(path, FIVE, WindowCenter="1e400", WindowWidth=5)) == "its window is not a finite number"
    why = reason(dicom(path, FIVE, RescaleSlope="1e400", RescaleIntercept=0))
    assert why == "its rescale slope or intercept is not a finite number"
    assert "colors of uint16 and shape (2, 2, 3)" in reason(dicom(path, np.zeros((2, 2, 3), np.uint16), "RGB"))
    path.write_bytes(path.read_bytes()[:100])
    assert "letters DICM are missing" in reason(path)


def test_a_compression_that_cannot_be_read_is_named(tmp_path):
    path = dicom(tmp_path / "a.dcm", PixelData=pydicom.encaps.encapsulate([b"\1\2\3\4"]), syntax=JPEGLSLossless)
    why = "cannot be read here; store it without, or install pylibjpeg"
    assert reason(path) == f"its compression (JPEG-LS Lossless Image Compression) {why}"
    path = dicom(tmp_path / "b.dcm", syntax=DeflatedExplicitVRLittleEndian)
    assert reason(path) == "its compression (Deflated Explicit VR Little Endian) is not accepted; store it without"


def test_a_large_file_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("dia_models.data.dicom.LARGEST_BYTES", 100)
    assert reason(dicom(tmp_path / "a.dcm")).startswith("a DICOM file of more than ")


def test_without_pydicom_it_says_what_to_install(tmp_path, monkeypatch):
    path = dicom(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert reason(path) == "reading DICOM needs the package pydicom: pip install 'dia-analysis[medical]'"


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_give_an_image_or_one_line(tmp_path, seed):
    content = bytearray(dicom(tmp_path / "a.dcm", WindowCenter=100, WindowWidth=50).read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(132, len(content), 4):
        content[place] = random.integers(256)
    (tmp_path / "a.dcm").write_bytes(content)
    try:
        assert read_image(tmp_path / "a.dcm", (8, 8), 1).shape == (8, 8, 1)
    except UnreadableImageError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017  (either outcome is right)


def test_x_rays_in_dicom_are_read_by_patient_and_bad_ones_named(tmp_path, capsys):
    root = chest_xray(tmp_path / "data")
    folder = root / "chest_xray" / "test" / "NORMAL"
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            dicom(path.with_suffix(".dcm"), np.asarray(image))
        path.unlink()
    bad = dicom(folder / "IM-0999-0001.dcm", PixelData=None)
    source = open_data("chest-xray", "test", root)
    assert len(source) == 17
    ckpt = network(tmp_path / "net.safetensors")
    run = ("gradcam", "--ckpt", ckpt, "--data-dir", root, "--images", 17)
    assert analyze(*run, "--out", tmp_path / "out") == 0
    assert f"NORMAL/{bad.name}: a DICOM file without pixel data" in capsys.readouterr().err
    assert "a DICOM file without pixel data" in failure(capsys, analyze(*run, "--strict", "--out", tmp_path / "b"))


def test_a_third_class_is_an_error_that_says_what_to_do(tmp_path):
    root = chest_xray(tmp_path)
    dicom_folder = root / "chest_xray" / "test" / "COVID"
    dicom_folder.mkdir()
    dicom(dicom_folder / "a.dcm")
    with pytest.raises(ModelInputError, match="has the class folders COVID, NORMAL, PNEUMONIA; chest-xray has NORMAL"):
        open_data("chest-xray", "test", root)


def photograph(path):
    pixels = np.zeros((30, 30, 3), dtype=np.uint8)
    pixels[:, :, 0], pixels[:15, :, 1] = 180, 90
    Image.fromarray(pixels).save(path)
    return path


def test_how_coloured_a_picture_is_by_hand():
    grey_picture = np.full((2, 2, 3), 77, dtype=np.uint8)
    coloured = grey_picture.copy()
    coloured[0, 0] = 10, 30, 50
    assert colorfulness(np.stack([grey_picture, coloured])).tolist() == [0, 40 / 4]


def test_a_photograph_for_an_x_ray_network_is_warned_of_with_the_reason(tmp_path, capsys):
    photo = photograph(tmp_path / "holiday.png")
    Image.fromarray(np.full((30, 30, 3), 90, np.uint8)).save(tmp_path / "thorax.jpg")
    ckpt = network(tmp_path / "net.safetensors")
    run = ("gradcam", "--ckpt", ckpt, photo, tmp_path / "thorax.jpg", "--out", tmp_path / "out")
    assert analyze(*run) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warning == (
        "warning: holiday.png is colored: red, green and blue differ by 180 of 255 levels on average, in an X-ray by "
        "0. It looks like a photograph; what a chest X-ray network says of it means nothing"
    )


def test_other_networks_may_see_photographs(tmp_path, capsys):
    ckpt = network(tmp_path / "net.safetensors", classes=("cat", "dog"))
    assert analyze("gradcam", "--ckpt", ckpt, photograph(tmp_path / "a.png"), "--out", tmp_path / "out") == 0
    assert "warning" not in capsys.readouterr().err


def test_grey_pictures_stored_in_colour_bring_no_warning(tmp_path, capsys):
    root = chest_xray(tmp_path / "data")
    for path in (root / "chest_xray" / "test").rglob("*.png"):
        with Image.open(path) as image:
            image.convert("RGB").save(path.with_suffix(".jpeg"), quality=60)
        path.unlink()
    ckpt = network(tmp_path / "net.safetensors", validation=None)
    assert train("eval", "--ckpt", ckpt, "--data-dir", root) == 0
    assert "warning" not in capsys.readouterr().err


def test_of_many_photographs_some_are_named(tmp_path, capsys):
    root = chest_xray(tmp_path / "data")
    for path in (root / "chest_xray" / "test").rglob("*.png"):
        photograph(path)
    ckpt = network(tmp_path / "net.safetensors", validation=None)
    assert analyze("regions", "--ckpt", ckpt, "--data-dir", root, "--out", tmp_path / "out") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(lines) == 6
    assert lines[-1] == "warning: and 11 more of the 16 images that were looked at are colored"


def test_what_was_done_to_each_file_is_recorded(tmp_path, capsys):
    padded = np.array([[0, 100], [200, 4000]], dtype=np.uint16)
    dicom(tmp_path / "a.dcm", padded, "MONOCHROME1", WindowCenter=100, WindowWidth=200, PixelPaddingValue=4000)
    dicom(tmp_path / "b.dcm", padded, RescaleSlope=2, RescaleIntercept=-5)
    dicom(tmp_path / "c.dcm")
    ckpt = network(tmp_path / "net.safetensors")
    files = [tmp_path / f"{name}.dcm" for name in "abc"]
    assert analyze("gradcam", "--ckpt", ckpt, *files, "--json", "--out", tmp_path / "out") == 0
    done = json.loads(capsys.readouterr().out)["dicom"]
    assert done == {
        "a.dcm": "window center 100, width 200; inverted (MONOCHROME1); 25.0% padding (PixelPaddingValue 4000) black",
        "b.dcm": "rescale slope 2 and intercept -5, no window: from -5 (black) to 7995 (white)",
        "c.dcm": "range as stored",
    }
    lines = (tmp_path / "out" / "dicom.csv").read_text().splitlines()
    assert lines[0] == "image,what was done to its values"
    assert lines[3] == "c.dcm,range as stored"
