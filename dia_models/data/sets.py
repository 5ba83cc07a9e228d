"""Data sets by name."""

from pathlib import Path

import dia_models.data.catalog  # noqa: F401  (registers the data sets)
from dia_models.data.detection.sets import is_scenes
from dia_models.data.folder import SPLITS, open_folder
from dia_models.data.images import ImageSource
from dia_models.data.request import SETS, Request, data_root
from dia_models.errors import ModelInputError, unknown


def data_names() -> list[str]:
    """The data sets known by name."""
    return list(SETS)


def open_data(
    name: str,
    split: str,
    root: str | Path | None = None,
    *,
    workers: int = 2,
    strict: bool = False,
    download: bool = False,
) -> ImageSource:
    """Open the `train` or `test` part of a data set by name, or of `folder:PATH`.

    A folder holds `train/` and `test/` (or `val/`), or one folder per class, or loose images. Without `train/`,
    every fifth image of a class is its test part and the rest its train part. The split `any` is for images that
    are only looked at: the test part of a set that comes in parts, else everything.
    Raises ModelInputError if the name is unknown or the files are not there, saying what to put where.
    `download` fetches a set that is missing, where its source allows it.
    """
    if split not in (*SPLITS, "any"):
        raise unknown("split", split, [*SPLITS, "any"])
    kind, _, path = name.partition(":")
    request = Request(split, data_root(root), workers, strict, download)
    if kind == "folder" and path:
        try:
            return open_folder(Path(path).expanduser(), request)
        except (OSError, RuntimeError) as error:  # no permission, a name that is too long, no such user's home
            raise ModelInputError("data", f"{name} cannot be opened: {error}") from error
    if is_scenes(name):
        raise ModelInputError(
            "data", f"{name} has objects in boxes, for detectors; accepted here: {', '.join([*SETS, 'folder:PATH'])}"
        )
    if name not in SETS and len(Path(name).parts) > 1:
        raise ModelInputError("data", f"unknown data {name!r}; a folder of images is given as folder:{name}")
    if name not in SETS:
        raise unknown("data", name, [*SETS, "folder:PATH"])
    return SETS[name](request)
