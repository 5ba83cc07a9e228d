"""The image files in and below a folder."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dia_models.data.decode import is_image
from dia_models.data.warn_once import warn_once

LEFTOVERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"})  # folders that systems make by themselves
OTHER_PICTURES = frozenset(
    {".avif", ".heic", ".heif", ".jp2", ".jxl", ".tga", ".psd", ".svg", ".nii", ".mha", ".nrrd", ".npy"}
)


def is_own(path: Path) -> bool:
    """Whether the user put this file or folder there: it is neither hidden nor what a system leaves behind."""
    return not path.name.startswith(".") and path.name not in LEFTOVERS


def image_paths(folder: Path) -> list[Path]:
    """All images in and below a folder, by name, without hidden files and folders. Links are followed.

    Warns of pictures of a kind that is not read, and of links that lead nowhere.
    """
    found, others = [], Counter[str]()
    for path in _files(folder):
        if is_image(path):
            found.append(path)
        elif path.is_symlink() and not path.exists():
            others["broken links"] += 1
        elif path.suffix.lower() in OTHER_PICTURES:
            others[path.suffix.lower()] += 1
    if others:
        counts = ", ".join(f"{kind} ({count})" for kind, count in sorted(others.items()))
        warn_once(f"{folder}: left out, since they cannot be read: {counts}")
    return sorted(found)


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder; each folder once, though links can lead to it again and again."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        here = Path(place)
        status = here.stat()
        if (identity := (status.st_dev, status.st_ino)) in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if is_own(here / name))
        yield from (here / name for name in files if is_own(here / name))


def _raise(error: OSError) -> None:
    raise error
