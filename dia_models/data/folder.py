"""Folders of images: one folder per class, or loose images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from dia_models.data.decode import SUFFIXES, is_image
from dia_models.data.image_paths import image_paths, is_own
from dia_models.data.images import UNLABELED, FileImages
from dia_models.data.request import Request
from dia_models.data.warn_once import warn_once
from dia_models.errors import ModelInputError, some
from dia_models.words import quantity

SPLITS = ("train", "test")
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")  # the first that is there is the test part


def open_folder(folder: Path, request: Request) -> FileImages:
    """The part asked for of a folder with `train/` and `test/`, or with every fifth image of a class for testing.

    Without `test/`, `val/` is the test part, with a warning.
    Raises ModelInputError for a folder that has one of the two parts only, and otherwise as `image_folder` does.
    """
    if not folder.is_dir():
        raise ModelInputError("data", f"{folder} is not a folder; folder:PATH takes a folder of images")
    if parts := _parts(folder):
        return image_folder(parts[request.part], request)
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


def _parts(folder: Path) -> Mapping[str, Path]:
    """The folders of the train and the test part; nothing if the folders are classes."""
    inside = {path.name.lower(): path for path in _folders(folder)}
    train = [inside[name] for name in TRAIN_NAMES if name in inside]
    test = [inside[name] for name in TEST_NAMES if name in inside]
    if train and test:
        if (part := test[0].name.lower()) not in TEST_NAMES[:2]:
            warn_once(f"{folder} has no test/; {part}/ is taken as the test part")
        if rest := [path.name for path in inside.values() if path not in (train[0], test[0])]:
            warn_once(f"{folder}: left out beside the train and the test part: {some(rest)}")
        return {"train": train[0], "test": test[0]}
    if inside and inside.keys() <= {*TRAIN_NAMES, *TEST_NAMES}:
        raise ModelInputError(
            "data",
            f"{folder} has {some(path.name + '/' for path in inside.values())} but not both parts; accepted: train/ "
            "with test/ (or val/), or one folder per class",
        )
    return {}


def image_folder(folder: Path, request: Request) -> FileImages:
    """The images of a folder: one class per sub-folder, or without classes if it holds images itself.

    An image in a folder inside a class folder counts for the class, with a warning.
    Raises ModelInputError for a folder without images, for a class folder without images, for a class whose name no
    checkpoint could hold, and for a single folder that holds folders only, which is no class but wraps them.
    """
    class_folders = _folders(folder)
    found = [(path, label) for label, inside in enumerate(class_folders) for path in image_paths(inside)]
    loose = sorted(path for path in folder.iterdir() if is_own(path) and is_image(path))
    classes = tuple(path.name for path in class_folders)
    if found:
        _check_not_wrapped(class_folders, [path for path, _ in found])
        _check_classes(folder, classes, {label for _, label in found})
        _say_where(folder, [path for path, _ in found], len(loose))
    else:
        classes, found = (), [(path, UNLABELED) for path in loose]
    if not found:
        raise ModelInputError("data", f"{folder}: no images found; looked for {', '.join(sorted(SUFFIXES))}")
    paths, labels = zip(*found, strict=True)
    return FileImages(folder, paths, labels, classes, request.workers, request.strict)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_own(path))


def _check_not_wrapped(class_folders: Sequence[Path], paths: Sequence[Path]) -> None:
    """Archives often unpack to one folder around the class folders."""
    if len(class_folders) == 1 and all(path.parent != class_folders[0] for path in paths):
        inside = some(path.name + "/" for path in _folders(class_folders[0]))
        raise ModelInputError(
            "data", f"{class_folders[0].parent} has one folder, which holds {inside}; give folder:{class_folders[0]}"
        )


def _check_classes(folder: Path, classes: Sequence[str], with_images: set[int]) -> None:
    if empty := [name for label, name in enumerate(classes) if label not in with_images]:
        raise ModelInputError(
            "data",
            f"{folder}: no images in {some(empty)} ({len(empty)} of {len(classes)} class folders); remove what is no "
            "class, or add its images",
        )
    for name in classes:
        if not name.isprintable():
            raise ModelInputError("data", f"{folder}: the class folder {name!r} needs a printable name")


def _say_where(folder: Path, paths: Sequence[Path], loose: int) -> None:
    """Warn of images that lie elsewhere than in the class folders."""
    if loose:
        warn_once(f"{folder}: {quantity(loose, 'image')} beside the class folders left out")
    deeper = [path.parent.relative_to(folder) for path in paths if path.parent.parent != folder]
    if deeper:
        places = some(dict.fromkeys(place.as_posix() for place in deeper))
        warn_once(f"{folder}: {quantity(len(deeper), 'image')} in {places} counted for the class they are in")
