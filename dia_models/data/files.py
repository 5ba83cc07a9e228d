"""Image files and folders named one by one."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dia_models.data.decode import SUFFIXES
from dia_models.data.image_paths import image_paths
from dia_models.data.images import UNLABELED, FileImages
from dia_models.data.warn_once import warn_once
from dia_models.errors import ModelInputError


def open_files(paths: Sequence[str | Path], *, workers: int = 2, strict: bool = False) -> FileImages:
    """Open image files and folders that are named one by one.

    Hidden files in folders are passed over. A file that is named twice is taken once, with a warning.

    Args:
        paths: Files, and folders, of which all images in and below are taken, by name.
        workers: Threads that decode them.
        strict: Whether a file that cannot be read is an error.

    Returns:
        The images in the order given, without labels.

    Raises:
        ModelInputError: For a path that does not exist, a folder without images, and for no paths at all.
    """
    found = [file for path in paths for file in _expand(Path(path).expanduser())]
    if not found:
        raise ModelInputError("paths", "no image given")
    absolute = tuple(dict.fromkeys(path.absolute() for path in found))
    if twice := len(found) - len(absolute):
        warn_once(f"{twice} of the {len(found)} images are named a second time; each is read once")
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    return FileImages(root, absolute, (UNLABELED,) * len(absolute), (), workers, strict)


def _expand(path: Path) -> Iterator[Path]:
    try:
        if path.is_file():
            yield path
        elif path.is_dir():
            inside = image_paths(path)
            if not inside:
                looked = ", ".join(sorted(SUFFIXES))
                raise ModelInputError("paths", f"{path} has no images in it; looked for {looked}")
            yield from inside
        else:
            raise ModelInputError("paths", f"there is no file or folder {path}")
    except OSError as error:  # no permission, a name that is too long
        raise ModelInputError("paths", f"{path} cannot be opened: {error}") from error
