"""Images and their labels as a table names them: `labels:FILE.csv`."""

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dia_models.data.images import UNLABELED, FileImages
from dia_models.data.request import Request
from dia_models.errors import ModelInputError, one_line, some

LARGEST_BYTES = 256 * 2**20
FORM = "a first row of column names, then rows of an image's path and its label, or a 0 or 1 in each of several columns"


def open_labels(path: Path, request: Request) -> FileImages:
    """The images that a CSV file names, by paths below its own folder.

    One further column holds labels: numbers of the network's outputs, or names of classes; an empty one is none.
    Several hold 0 or 1 each, for images of several classes at once, whose names are the columns'.
    Raises ModelInputError, naming the line, for a file of another form, for a path that leads out of the folder or to
    no file, and for a training part: it has no parts.
    """
    if request.split == "train":
        raise ModelInputError("data", f"{path} has no training part; train on a folder of class folders (folder:PATH)")
    columns, rows = _read(path)
    paths = tuple(_image(path, line, cells[0]) for line, cells in rows)
    if len(set(paths)) < len(paths):
        twice = next(line for place, (line, _) in enumerate(rows) if paths[place] in paths[:place])
        raise _error(path, twice, "names an image that is named above")
    how: dict[str, Any] = {"workers": request.workers, "strict": request.strict}
    if len(columns) > 1:
        marks = tuple(_marks(path, line, cells[1:]) for line, cells in rows)
        return FileImages(path.parent, paths, (UNLABELED,) * len(paths), tuple(columns), rows=marks, **how)
    given = [cells[1].strip() for _, cells in rows]
    if all(label.isascii() and label.isdigit() for label in given if label):
        labels = tuple(int(label) if label else UNLABELED for label in given)
        return FileImages(path.parent, paths, labels, (), by_number=True, **how)
    classes = tuple(sorted({label for label in given if label}))
    number = {"": UNLABELED, **{name: place for place, name in enumerate(classes)}}
    return FileImages(path.parent, paths, tuple(number[label] for label in given), classes, **how)


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns behind the first, and the rows with their lines."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ModelInputError("data", f"{path} has more than 256 MiB; give a CSV file: {FORM}")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelInputError("data", f"{path} cannot be read ({one_line(error, 80)}); give a CSV file") from error
    if len(rows) < 2 or len(rows[0][1]) < 2:
        raise ModelInputError("data", f"{path} has no labels in it; it takes {FORM}")
    (_, header), *body = rows
    columns = [name.strip() for name in header[1:]]
    if len(set(columns)) < len(columns) or not all(name and name.isprintable() for name in columns):
        raise ModelInputError("data", f"{path}: its columns {some(columns)} need names of their own")
    if _is_file(path.parent / header[0]):
        raise ModelInputError("data", f"{path} begins with an image, {one_line(header[0], 60)}; it takes {FORM}")
    if odd := next((row for row in body if len(row[1]) != len(header)), None):
        raise _error(path, odd[0], f"has {len(odd[1])} cells; the first row has {len(header)}")
    return columns, body


def _image(path: Path, line: int, given: str) -> Path:
    inside = PurePosixPath(given.strip().replace("\\", "/"))
    if not inside.parts or inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
        named = one_line(given, 80) if given.strip() else "no image"
        raise _error(path, line, f"names {named}; paths start at the file's folder, and stay in it")
    if not _is_file(path.parent / inside):
        raise _error(path, line, f"names {one_line(given, 80)}, which is no file in {path.parent}")
    return path.parent / inside


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or none
        return False


def _marks(path: Path, line: int, cells: Sequence[str]) -> tuple[int, ...]:
    found = [cell.strip().removesuffix(".0") for cell in cells]
    if wrong := [cell for cell in found if cell not in ("0", "1")]:
        raise _error(path, line, f"has {one_line(repr(wrong[0]), 40)}; several columns of labels take 0 or 1 each")
    return tuple(map(int, found))


def _error(path: Path, line: int, text: str) -> ModelInputError:
    return ModelInputError("data", f"{path}, line {line}, {text}")
