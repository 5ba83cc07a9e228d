"""Published data sets: found in their own layout or as image folders, else told what to put where."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dia_models import ModelInputError
from dia_models.data import data_names, open_data
from dia_models.data.masks import find_masks, masks_beside, read_mask
from dia_models.data.request import Request
from tests.support.commands import SE, analyze, failure, train


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


@pytest.mark.parametrize(("name", "test"), [("cifar100", "test"), ("stl10", "test"), ("mini-imagenet", "test")])
def test_sets_may_be_image_folders(name, test, tmp_path):
    for part, count in (("train", 2), (test, 1)):
        for number in range(count):
            for label in ("ant", "bee"):
                put(tmp_path / name / part / label / f"{number}.png")
    assert len(open_data(name, "train", tmp_path)) == 4
    found = open_data(name, "any", tmp_path)
    assert (len(found), found.classes) == (2, ("ant", "bee"))


def test_imagenets_test_part_is_its_validation_folder(tmp_path):
    put(tmp_path / "imagenet" / "val" / "n01440764" / "1.png")
    assert open_data("imagenet", "test", tmp_path).classes == ("n01440764",)


@pytest.mark.parametrize("name", sorted(set(data_names()) - {"digits", "chest-xray-sample"}))
def test_a_missing_set_says_what_to_put_where(name, tmp_path):
    with pytest.raises(ModelInputError, match=rf"{name} is not in .*: put .* there, or name another folder") as caught:
        open_data(name, "test", tmp_path)
    fetched = name in ("cifar10", "cifar100", "stl10", "pneumoniamnist")
    assert ("(download)" in str(caught.value)) == fetched


def test_twelve_x_rays_with_their_lungs_come_with_the_package():
    images = open_data("chest-xray-sample", "test")
    assert images.classes == ("NORMAL", "PNEUMONIA")
    assert list(images.labels) == [0] * 6 + [1] * 6
    assert len({images.group_of(images.name(i)) for i in range(12)}) == 12
    masks = find_masks(masks_beside(images), images, range(12))
    lungs = np.stack([read_mask(*masks[i], (32, 32)) for i in range(12)])
    assert (lungs.mean((1, 2)) > 0.15).all()
    assert (lungs.mean((1, 2)) < 0.6).all()
    with pytest.raises(ModelInputError, match="chest-xray-sample has no training part"):
        open_data("chest-xray-sample", "train")


@pytest.mark.parametrize("place", ["chest_xray_masks", "chest_xray_masks/test"])
def test_masks_lie_beside_x_rays_and_doubtful_ones_are_left_out(place, tmp_path):
    for name in ("NORMAL/a", "NORMAL/b", "PNEUMONIA/c"):
        for folder, suffix in (("chest_xray", "jpeg"), ("chest_xray_masks", "png")):
            path = tmp_path / folder / "test" / f"{name}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 255).save(path)
    images = open_data("chest-xray", "test", tmp_path)
    folder = masks_beside(images)
    assert folder == tmp_path / "chest_xray_masks" / "test"
    assert set(find_masks(folder, images, range(3))) == {0, 1, 2}
    before = "test/" if place == "chest_xray_masks" else ""
    index = tmp_path / place / "index.csv"
    index.write_text(f"mask,match_score\n{before}NORMAL/a.png,0.5\n{before}NORMAL/b.png,0.49\n")
    assert set(find_masks(folder, images, range(3))) == {0, 2}
    index.write_text("mask,match_score\nNORMAL/a.png,high\n")
    with pytest.raises(ModelInputError, match="index.csv cannot be read as a CSV of masks and match_scores"):
        find_masks(folder, images, range(3))
    assert masks_beside(open_data("digits", "test")) is None


def medmnist(path, **changes):
    arrays = {"train_images": np.zeros((3, 28, 28), np.uint8), "train_labels": np.array([[0], [1], [1]], np.uint8)}
    np.savez(path / "pneumoniamnist.npz", **{**arrays, **changes})


def test_pneumoniamnist_is_read_without_executing_anything(tmp_path):
    medmnist(tmp_path)
    images = open_data("pneumoniamnist", "train", tmp_path)
    assert images.pixels.shape == (3, 28, 28, 1)
    assert images.labels.tolist() == [0, 1, 1]
    assert images.classes == ("normal", "pneumonia")


@pytest.mark.parametrize(
    "changes",
    [
        {"train_images": np.array([object()])},
        {"train_images": np.zeros((3, 28, 28), np.float32)},
        {"train_labels": np.zeros((2, 1), np.uint8)},
        {"train_labels": np.full((3, 1), 7, np.uint8)},
    ],
)
def test_other_contents_are_refused(changes, tmp_path):
    medmnist(tmp_path, **changes)
    with pytest.raises(ModelInputError, match=r"pneumoniamnist\.npz is not MedMNIST's file"):
        open_data("pneumoniamnist", "train", tmp_path)


def test_a_truncated_file_is_refused(tmp_path):
    medmnist(tmp_path)
    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelInputError, match="is not MedMNIST's file"):
        open_data("pneumoniamnist", "train", tmp_path)


def test_downloading_it_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(ModelInputError, match=r"pip install 'dia-analysis\[medical\]'"):
        open_data("pneumoniamnist", "train", tmp_path, download=True)


def test_torchvisions_arrays_become_images(tmp_path, monkeypatch):
    class Fake:
        classes = ("cat", "dog")
        labels = np.array([1, 0], np.int8)
        targets = (1, 0)

        def __init__(self, root, download, **part):
            assert (root, download, part) == (str(tmp_path), True, self.expected)

    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    for name, original, data, part in (
        ("cifar100", "CIFAR100", pixels, {"train": False}),
        ("stl10", "STL10", pixels.transpose(0, 3, 1, 2), {"split": "test"}),
    ):
        monkeypatch.setattr(f"torchvision.datasets.{original}", type(name, (Fake,), {"data": data, "expected": part}))
        images = open_data(name, "test", tmp_path, download=True)
        assert torch.equal(images.pixels, torch.from_numpy(pixels))
        assert images.labels.tolist() == [1, 0]


def test_a_request_for_anything_is_for_the_test_part(tmp_path):
    assert [Request(split, tmp_path).part for split in ("train", "test", "any")] == ["train", "test", "test"]


@pytest.mark.parametrize("command", ["correlation", "capture", "gini", "gradients", "gradcam", "eval", "fit"])
def test_every_command_that_reads_data_can_download(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "medmnist", None)
    data = ("--data", "pneumoniamnist", "--data-dir", tmp_path, "--out", tmp_path / "out")
    if command == "fit":
        code = train("fit", "--model", "cifar_resnet11", *data, "--download")
    elif command == "eval":
        code = train("eval", "--ckpt", SE, *data[:4], "--download")
    else:
        code = analyze(command, "--ckpt", SE, *data, "--download")
    assert "downloading pneumoniamnist needs the package medmnist" in failure(capsys, code)
