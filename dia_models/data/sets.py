"""Data sets by name, where they are looked for, and what to do when they are not there."""

import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_dir

from dia_models.data import chest_xray
from dia_models.data.decode import SUFFIXES
from dia_models.data.images import UNLABELLED, FileImages, ImageSource, MemoryImages
from dia_models.errors import ModelInputError, unknown

SPLITS = ("train", "test")
DIGITS_TRAIN = 1_437  # of 1,797, in scikit-learn's order; the other 360 are the test part


@dataclass(frozen=True)
class Request:
    """Which part of a data set to open, and how to read files."""

    split: str
    root: Path
    workers: int = 2
    strict: bool = False


_SETS: dict[str, Callable[[Request], ImageSource]] = {}


def data_names() -> list[str]:
    """The data sets known by name."""
    return list(_SETS)


def data_root(given: str | Path | None = None) -> Path:
    """Where data sets are looked for: the folder given, else $DIA_DATA_DIR, else the user's cache folder."""
    return Path(given or os.environ.get("DIA_DATA_DIR") or user_cache_dir("dia"))


def open_data(
    name: str, split: str, root: str | Path | None = None, *, workers: int = 2, strict: bool = False
) -> ImageSource:
    """Open the `train` or `test` part of a data set by name, or of `folder:PATH`.

    A folder holds `train/` and `test/`, or one folder per class, or loose images. Without `train/` and `test/`,
    every fifth image of a class is its test part and the rest its train part. The split `any` is for images that
    are only looked at: the test part of a set that comes in parts, else everything.
    Raises ModelInputError if the name is unknown or the files are not there, saying what to put where.
    """
    if split not in (*SPLITS, "any"):
        raise unknown("split", split, [*SPLITS, "any"])
    kind, _, path = name.partition(":")
    request = Request(split, data_root(root), workers, strict)
    if kind == "folder" and path:
        try:
            return _open_folder(Path(path).expanduser(), request)
        except (OSError, RuntimeError) as error:  # no permission, a name that is too long, no such user's home
            raise ModelInputError("data", f"{name} cannot be opened: {error}") from error
    if name not in _SETS:
        raise unknown("data", name, [*_SETS, "folder:PATH"])
    return _SETS[name](request)


def _register(name: str) -> Callable[[Callable[[Request], ImageSource]], Callable[[Request], ImageSource]]:
    def decorate(opener: Callable[[Request], ImageSource]) -> Callable[[Request], ImageSource]:
        _SETS[name] = opener
        return opener

    return decorate


@_register("digits")
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


@_register("cifar10")
def _cifar10(request: Request) -> ImageSource:
    if (request.root / "cifar-10-batches-py").is_dir():
        from torchvision.datasets import CIFAR10

        try:  # torchvision compares every file's checksum before it unpickles it
            original = CIFAR10(str(request.root), train=request.split == "train")
        except RuntimeError as error:
            raise ModelInputError("data", f"{request.root / 'cifar-10-batches-py'}: {error}") from error
        return MemoryImages(torch.from_numpy(original.data), torch.tensor(original.targets), tuple(original.classes))
    folder = request.root / "cifar10" / _part(request)
    if folder.is_dir():
        return image_folder(folder, request)
    raise ModelInputError(
        "data",
        f"cifar10 is not in {request.root}: put torchvision's cifar-10-batches-py/ there, or an image folder "
        "cifar10/{train,test}/<class>/, or name another folder with --data-dir or $DIA_DATA_DIR",
    )


@_register("chest-xray")
def _chest_xray(request: Request) -> FileImages:
    folder = request.root / "chest_xray" / _part(request)
    if not folder.is_dir():
        raise ModelInputError(
            "data",
            f"chest-xray is not in {request.root}: put the folder chest_xray/{{train,test}}/{{NORMAL,PNEUMONIA}}/ of "
            "Kermany et al. 2018 there, or name another folder with --data-dir or $DIA_DATA_DIR",
        )
    images = image_folder(folder, request)
    if images.classes != chest_xray.CLASSES:
        found = ", ".join(images.classes) or "none"
        raise ModelInputError("data", f"{folder} has the class folders {found}; expected NORMAL and PNEUMONIA")
    return replace(images, group_of=chest_xray.patient)


def _open_folder(folder: Path, request: Request) -> FileImages:
    if not folder.is_dir():
        raise ModelInputError("data", f"{folder} is not a folder; folder:PATH takes a folder of images")
    if all((folder / split).is_dir() for split in SPLITS):
        return image_folder(folder / _part(request), request)
    everything = image_folder(folder, request)
    if request.split == "any":
        return everything
    seen: Counter[int] = Counter()
    chosen = []
    for index, label in enumerate(everything.labels):
        seen[label] += 1
        if (seen[label] % 5 == 0) == (request.split == "test"):
            chosen.append(index)
    if not chosen:
        raise ModelInputError(
            "data", f"{folder} has no {request.split} part: it takes five images of a class to hold one out"
        )
    return everything.take(chosen)


def image_folder(folder: Path, request: Request) -> FileImages:
    """The images of a folder: one class per sub-folder, or without classes if it holds images itself.

    Raises ModelInputError for a folder without images, for a class folder without images, and for a class whose
    name no checkpoint could hold.
    """
    class_folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    classes = tuple(p.name for p in class_folders)
    found = [(path, label) for label, p in enumerate(class_folders) for path in _files(p)]
    empty = set(range(len(classes))) - {label for _, label in found}
    if found and empty:
        raise ModelInputError("data", f"{folder}: no images in {', '.join(classes[i] for i in sorted(empty))}")
    for name in classes:
        if not name.isprintable():
            raise ModelInputError("data", f"{folder}: the class folder {name!r} needs a printable name")
    loose = _files(folder)
    if found and loose:
        warnings.warn(f"{folder}: {len(loose)} images beside the class folders are left out", stacklevel=2)
    if not found:
        classes, found = (), [(path, UNLABELLED) for path in loose]
    if not found:
        raise ModelInputError("data", f"{folder}: no images found; looked for {', '.join(sorted(SUFFIXES))}")
    paths, labels = zip(*found, strict=True)
    return FileImages(folder, paths, labels, classes, request.workers, request.strict)


def _part(request: Request) -> str:
    return "train" if request.split == "train" else "test"


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and p.name[0] != ".")
