"""Folders of images: one folder per class, or loose images."""

import warnings
from collections import Counter
from pathlib import Path

from dia_models.data.decode import SUFFIXES, is_image
from dia_models.data.images import UNLABELLED, FileImages
from dia_models.data.request import Request
from dia_models.errors import ModelInputError

SPLITS = ("train", "test")


def open_folder(folder: Path, request: Request) -> FileImages:
    """The part asked for of a folder with `train/` and `test/`, or with every fifth image of a class for testing."""
    if not folder.is_dir():
        raise ModelInputError("data", f"{folder} is not a folder; folder:PATH takes a folder of images")
    if all((folder / split).is_dir() for split in SPLITS):
        return image_folder(folder / request.part, request)
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


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name[0] != "." and is_image(p))
