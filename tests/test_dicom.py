"""DICOM files: each kind gives the bytes worked out by hand, and what cannot be read gives one clear line."""

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
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from test_cli import analyze, failure, train
from xray_data import chest_xray, network

from dia_models import ModelInputError
from dia_models.data import open_data, open_files
from dia_models.data.colour import colourfulness
from dia_models.data.decode import UnreadableImageError, image_size, read_image

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
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 16], [0, 10, 40, 100]
    table.add_new(0x00283002, "US", [4, 0, 16])
    table.add_new(0x00283006, "US", [0, 10, 40, 100])
    values = np.array([[0, 1, 2, 3, 9]], dtype=np.uint16)
    assert grey(dicom(tmp_path / "a.dcm", values, VOILUTSequence=[table])) == [[0, 26, 102, 255, 255]]


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
    for name in ("a.dcm", "B.DCM", "study", "1.2.840.113", "c.png"):
        dicom(tmp_path / name)
    (tmp_path / "README").write_text("no image")
    (tmp_path / "notes.1").write_text("no image")
    found = open_files([tmp_path])
    assert [path.name for path in found.paths] == ["1.2.840.113", "B.DCM", "a.dcm", "c.png", "study"]
    for path in found.paths:
        assert grey(path) == ROWS.tolist()


def reason(path):
    with pytest.raises(UnreadableImageError) as caught:
        read_image(path, (8, 8), 1)
    assert len(str(caught.value).splitlines()) == 1
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
    assert "colours of uint16 and shape (2, 2, 3)" in reason(dicom(path, np.zeros((2, 2, 3), np.uint16), "RGB"))
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
    assert colourfulness(np.stack([grey_picture, coloured])).tolist() == [0, 40 / 4]


def test_a_photograph_for_an_x_ray_network_is_warned_of_with_the_reason(tmp_path, capsys):
    photo = photograph(tmp_path / "holiday.png")
    Image.fromarray(np.full((30, 30, 3), 90, np.uint8)).save(tmp_path / "thorax.jpg")
    ckpt = network(tmp_path / "net.safetensors")
    run = ("gradcam", "--ckpt", ckpt, photo, tmp_path / "thorax.jpg", "--out", tmp_path / "out")
    assert analyze(*run) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warning == (
        "warning: holiday.png is coloured: red, green and blue differ by 180 of 255 levels on average, in an X-ray by "
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
    assert lines[-1] == "warning: and 11 more of the 16 images that were looked at are coloured"
