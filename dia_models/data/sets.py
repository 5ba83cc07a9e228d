"""Data sets by name."""

from pathlib import Path

import dia_models.data.catalog  # noqa: F401  (registers the data sets)
from dia_models.data.detection.sets import is_scenes
from dia_models.data.folder import SPLITS, open_folder
from dia_models.data.image_source import ImageSource
from dia_models.data.labels_file import UNCERTAIN, open_labels
from dia_models.data.python_images import open_python
from dia_models.data.request import SETS, Request, data_root
from dia_models.errors import ModelInputError, unknown
from dia_models.user_code import is_user_code

OTHERS = ("folder:PATH", "labels:FILE.csv", "file.py:images")


def data_names() -> list[str]:
    """The names of the data sets, without those of the user's own."""
    return list(SETS)


def open_data(
    name: str,
    split: str,
    root: str | Path | None = None,
    *,
    workers: int = 2,
    strict: bool = False,
    download: bool = False,
    limit: int = 1000,
    uncertain: str = "leave-out",
) -> ImageSource:
    """Open a part of a data set.

    Args:
        name: A data set (`data_names`), `folder:PATH`, a table of images and labels (`labels:FILE.csv`, see
            `open_labels`), or a function of your own, which is run (`file.py:images`, see `PythonImages`). A folder
            holds `train/` and `test/` (or `val/`), or one folder per class, or loose images; without `train/`, every
            fifth image of a class is its test part.
        split: `train`, `test`, or `any`, for images that are only looked at: the test part of a set that comes in
            parts, else everything.
        root: Where data sets are, and the images that a table names; by default `$DIA_DATA_DIR`, else the user's cache
            folder, and the table's own folder.
        workers: Threads that decode files.
        strict: Whether a file that cannot be read is an error; else it is left out and remembered.
        download: Fetch a set that is missing, where its source allows it.
        limit: How many images are taken of what a function gives, if that has no length.
        uncertain: What labels of -1 in a table count as: `leave-out`, `positive` or `negative`.

    Returns:
        The images: in memory, or as files that are decoded when they are needed.

    Raises:
        ModelInputError: If the name is unknown or the files are not there; it says what to put where.
    """
    if split not in (*SPLITS, "any"):
        raise unknown("split", split, [*SPLITS, "any"])
    kind, _, path = name.partition(":")
    if uncertain not in UNCERTAIN:
        raise unknown("uncertain", uncertain, list(UNCERTAIN))
    folder = None if root is None else Path(root).expanduser()
    request = Request(split, data_root(root), workers, strict, download, limit, folder, uncertain)
    if kind == "folder" and path:
        try:
            return open_folder(Path(path).expanduser(), request)
        except (OSError, RuntimeError) as error:  # no permission, a name that is too long, no such user's home
            raise ModelInputError("data", f"{name} cannot be opened: {error}") from error
    if kind == "labels" and path:
        return open_labels(Path(path).expanduser(), request)
    if is_user_code(name):
        return open_python(name, request)
    if is_scenes(name):
        raise ModelInputError(
            "data", f"{name} has objects in boxes, for detectors; accepted here: {', '.join([*SETS, *OTHERS])}"
        )
    if name not in SETS and len(Path(name).parts) > 1:
        raise ModelInputError("data", f"unknown data {name!r}; a folder of images is given as folder:{name}")
    if name not in SETS:
        raise unknown("data", name, [*SETS, *OTHERS])
    return SETS[name](request)
