"""The published data sets, in torchvision's layout or as image folders."""

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from dia_models.data import chest_xray
from dia_models.data.folder import image_folder
from dia_models.data.images import FileImages, MemoryImages, StoredImages
from dia_models.data.request import Request, register_data_set
from dia_models.errors import ModelInputError

DIGITS_TRAIN = 1_437  # of 1,797, in scikit-learn's order; the other 360 are the test part


@register_data_set("digits")
def _digits(request: Request) -> MemoryImages:
    from sklearn.datasets import load_digits

    digits = load_digits()
    part = slice(None, DIGITS_TRAIN) if request.split == "train" else slice(DIGITS_TRAIN, None)
    pixels = np.rint(digits.images[part] * (255 / 16)).astype(np.uint8)
    return MemoryImages(
        torch.from_numpy(pixels[..., None]),
        torch.from_numpy(digits.target[part].astype(np.int64)),
        tuple(str(digit) for digit in digits.target_names),
    )


@register_data_set("cifar10")
def _cifar10(request: Request) -> StoredImages:
    return _cifar("cifar10", "CIFAR10", "cifar-10-batches-py", request)


@register_data_set("cifar100")
def _cifar100(request: Request) -> StoredImages:
    return _cifar("cifar100", "CIFAR100", "cifar-100-python", request)


def _cifar(name: str, original: str, folder: str, request: Request) -> StoredImages:
    if (images := _as_folder(request, name, request.part)) is not None:
        return images
    if not request.download and not (request.root / folder).is_dir():
        what = f"torchvision's {folder}/, or an image folder {name}/{{train,test}}/<class>/,"
        raise request.missing(name, what, downloads=True)
    found = _original(original, folder, request, train=request.part == "train")
    return MemoryImages(torch.from_numpy(found.data), torch.tensor(found.targets), tuple(found.classes))


@register_data_set("stl10")
def _stl10(request: Request) -> StoredImages:
    if (images := _as_folder(request, "stl10", request.part)) is not None:
        return images
    if not request.download and not (request.root / "stl10_binary").is_dir():
        what = "torchvision's stl10_binary/, or an image folder stl10/{train,test}/<class>/,"
        raise request.missing("stl10", what, downloads=True)
    found = _original("STL10", "stl10_binary", request, split=request.part)
    pixels = torch.from_numpy(np.ascontiguousarray(found.data.transpose(0, 2, 3, 1)))
    return MemoryImages(pixels, torch.from_numpy(found.labels.astype(np.int64)), tuple(found.classes))


@register_data_set("mini-imagenet")
def _mini_imagenet(request: Request) -> StoredImages:
    images = _as_folder(request, "mini-imagenet", request.part)
    if images is None:
        raise request.missing("mini-imagenet", "an image folder mini-imagenet/{train,test}/<class>/")
    return images


@register_data_set("imagenet")
def _imagenet(request: Request) -> StoredImages:
    images = _as_folder(request, "imagenet", "train" if request.part == "train" else "val")
    if images is None:
        raise request.missing("imagenet", "an image folder imagenet/{train,val}/<class>/")
    return images


@register_data_set("chest-xray")
def _chest_xray(request: Request) -> FileImages:
    images = _as_folder(request, "chest_xray", request.part)
    if images is None:
        what = "the folder chest_xray/{train,test}/{NORMAL,PNEUMONIA}/ of Kermany et al. 2018"
        raise request.missing("chest-xray", what)
    _check_classes(images)
    return replace(images, group_of=chest_xray.patient, grouping=chest_xray.GROUPING)


@register_data_set("chest-xray-sample")
def _chest_xray_sample(request: Request) -> FileImages:
    """Twelve images of the test part, which come with the package."""
    if request.split == "train":
        raise ModelInputError("data", "chest-xray-sample has no training part: it is 12 test images of chest-xray")
    folder = Path(str(files("dia_models") / "bundled" / "chest_xray" / "test"))
    return replace(image_folder(folder, request), group_of=chest_xray.patient, grouping=chest_xray.GROUPING)


def _check_classes(images: FileImages) -> None:
    if images.classes == chest_xray.CLASSES:
        return
    found = ", ".join(images.classes) or "none"
    raise ModelInputError(
        "data",
        f"{images.root} has the class folders {found}; chest-xray has NORMAL and PNEUMONIA and no other: move the "
        f"others away, or use all of them with folder:{images.root.parent}",
    )


@register_data_set("pneumoniamnist")
def _pneumoniamnist(request: Request) -> MemoryImages:
    path = request.root / "pneumoniamnist.npz"
    if request.download and not path.is_file():
        _download_medmnist(request.root)
    if not path.is_file():
        raise request.missing("pneumoniamnist", "MedMNIST's file pneumoniamnist.npz", downloads=True)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            pixels, labels = arrays[f"{request.part}_images"], arrays[f"{request.part}_labels"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ModelInputError("data", f"{path} is not MedMNIST's file: {error}") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or labels.shape != (len(pixels), 1) or labels.max() > 1:
        raise ModelInputError("data", f"{path} is not MedMNIST's file: its arrays have other shapes or types")
    classes = ("normal", "pneumonia")
    return MemoryImages(torch.from_numpy(pixels[..., None]), torch.from_numpy(labels[:, 0].astype(np.int64)), classes)


def _as_folder(request: Request, name: str, part: str) -> FileImages | None:
    folder = request.root / name / part
    return image_folder(folder, request) if folder.is_dir() else None


def _original(name: str, folder: str, request: Request, **part: Any) -> Any:
    """torchvision's data set, which compares every file's checksum before it unpickles it."""
    from torchvision import datasets

    try:
        with redirect_stdout(sys.stderr):  # where torchvision announces downloads
            return getattr(datasets, name)(str(request.root), download=request.download, **part)
    except (RuntimeError, OSError) as error:
        raise ModelInputError("data", f"{request.root / folder}: {error}") from error


def _download_medmnist(root: Path) -> None:
    try:
        from medmnist import PneumoniaMNIST
    except ImportError as error:
        message = "downloading pneumoniamnist needs the package medmnist: pip install 'dia-analysis[medical]'"
        raise ModelInputError("download", message) from error
    root.mkdir(parents=True, exist_ok=True)
    try:
        PneumoniaMNIST(split="test", root=str(root), download=True)
    except RuntimeError as error:
        raise ModelInputError("download", f"pneumoniamnist cannot be downloaded: {error}") from error
