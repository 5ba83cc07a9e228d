"""Images and their labels as a table names them: `labels:FILE.csv`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path, PurePosixPath
from typing import Any

from dia_models.data.csv_rows import csv_rows
from dia_models.data.images import UNLABELED, FileImages
from dia_models.data.request import Request
from dia_models.data.warn_once import warn_once
from dia_models.errors import ModelInputError, one_line, some
from dia_models.words import quantity

FORM = "a first row of column names, then rows of an image's path and its label, or a 0 or 1 in each of several columns"
IMAGE, JOINED, NONE, PATIENT = ("path", "image index", "image"), "finding labels", "no finding", "patient id"
ABOUT = frozenset(  # columns of CheXpert and of NIH's ChestX-ray14 that are no findings
    {"sex", "age", "frontal/lateral", "ap/pa", "follow-up #", PATIENT, "patient age", "patient gender", "patient sex"}
    | {"view position", "originalimage[width", "height]", "originalimagepixelspacing[x", "y]", ""}
)
MARKS = {"1": 1.0, "0": 0.0, "": 0.0, "-1": -1.0}
UNCERTAIN = {"leave-out": nan, "positive": 1.0, "negative": 0.0}
"""What an uncertain finding (-1) counts as, by the words of `uncertain`."""


def open_labels(path: Path, request: Request) -> FileImages:
    """The images that a CSV file names, by paths below `request.folder`, else below its own folder.

    The images stand in the column `Path`, `Image Index` or `image`, else in the first. One further column holds labels:
    numbers of the network's outputs, or names of classes; an empty one is none. Several hold 0 or 1 each, for images of
    several classes at once, whose names are the columns': as in CheXpert an empty one is 0, and -1, uncertain, is what
    `request.uncertain` says. Or a column `Finding Labels` holds the names of all, joined by `|`, as NIH's; `Patient ID`
    groups the images.
    Raises ModelInputError, naming the line, for a file of another form, for a path that leads out of the folder or to
    no file, and for a training part: it has no parts.
    """
    if request.split == "train":
        raise ModelInputError("data", f"{path} has no training part; train on a folder of class folders (folder:PATH)")
    table = _Table.read(path)
    root, paths = table.images(request.folder)
    how: dict[str, Any] = {"workers": request.workers, "strict": request.strict}
    if (patients := table.column(PATIENT)) is not None:
        whose = {image.relative_to(root).as_posix(): cell for image, cell in zip(paths, patients, strict=True)}
        how |= {"group_of": whose.__getitem__, "grouping": f"the column Patient ID of {path.name}"}
    if (joined := table.column(JOINED)) is not None:
        classes, marks = _joined(joined)
        return FileImages(root, paths, (UNLABELED,) * len(paths), classes, rows=marks, **how)
    findings = [name for number, name in enumerate(table.header) if table.is_finding(number)]
    if len(findings) > 1:
        marks = tuple(table.marks(request.uncertain))
        return FileImages(root, paths, (UNLABELED,) * len(paths), tuple(findings), rows=marks, **how)
    given = table.column(findings[0].lower()) or []
    if all(label.isascii() and label.isdigit() for label in given if label):
        labels = tuple(int(label) if label else UNLABELED for label in given)
        return FileImages(root, paths, labels, (), by_number=True, **how)
    classes = tuple(sorted({label for label in given if label}))
    number = {"": UNLABELED, **{name: place for place, name in enumerate(classes)}}
    return FileImages(root, paths, tuple(number[label] for label in given), classes, **how)


@dataclass(frozen=True)
class _Table:
    """The rows of a CSV file with their lines, and the names of its columns, of which `place` holds the images."""

    path: Path
    header: list[str]
    rows: list[tuple[int, list[str]]]
    place: int

    @classmethod
    def read(cls, path: Path) -> "_Table":
        rows = csv_rows(path, "data", f"give a CSV file: {FORM}")
        if len(rows) < 2 or len(rows[0][1]) < 2:
            raise ModelInputError("data", f"{path} has no labels in it; it takes {FORM}")
        (_, given), *body = rows
        header = [name.strip() for name in given]
        place = next((i for i, name in enumerate(header) if name.lower() in IMAGE), 0)
        table = cls(path, header, body, place)
        table.check(given[0])
        return table

    def check(self, first: str) -> None:
        """Raise ModelInputError unless columns have names and each row has a cell for each."""
        columns = [name for i, name in enumerate(self.header) if self.is_finding(i)]
        if len({name.lower() for name in columns}) < len(columns) or not all(map(str.isprintable, columns)):
            raise ModelInputError("data", f"{self.path}: its columns {some(columns)} need names of their own")
        if _is_file(self.path.parent / first):
            raise ModelInputError("data", f"{self.path} begins with an image, {one_line(first, 60)}; it takes {FORM}")
        if not columns and self.column(JOINED) is None:
            raise ModelInputError("data", f"{self.path} has no labels in it; it takes {FORM}")
        if odd := next((row for row in self.rows if len(row[1]) != len(self.header)), None):
            raise self.error(odd[0], f"has {len(odd[1])} cells; the first row has {len(self.header)}")

    def is_finding(self, number: int) -> bool:
        """Whether a column holds labels."""
        return number != self.place and self.header[number].lower() not in {*ABOUT, JOINED}

    def column(self, name: str) -> list[str] | None:
        """The cells of a column, None if there is none of this name."""
        place = next((i for i, each in enumerate(self.header) if each.lower() == name), None)
        return None if place is None else [cells[place].strip() for _, cells in self.rows]

    def images(self, folder: Path | None) -> tuple[Path, tuple[Path, ...]]:
        """The folder that the images' paths are below, and their files."""
        inside = [self._inside(line, cells[self.place]) for line, cells in self.rows]
        if len(set(inside)) < len(inside):
            twice = next(line for place, (line, _) in enumerate(self.rows) if inside[place] in inside[:place])
            raise self.error(twice, "names an image that is named above")
        own = self.path.parent
        folders = [own, own.parent] if inside[0].parts[0] == own.name else [own]  # as CheXpert's paths begin
        folders = folders if folder is None else [folder, *folders]
        root = next((each for each in folders if _is_file(each / inside[0])), folders[0])
        for (line, cells), image in zip(self.rows, inside, strict=True):
            if not _is_file(root / image):
                raise self.error(line, f"names {one_line(cells[self.place], 80)}, which is no file in {root}")
        return root, tuple(root / image for image in inside)

    def _inside(self, line: int, given: str) -> PurePosixPath:
        inside = PurePosixPath(given.strip().replace("\\", "/"))
        if not inside.parts or inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
            named = one_line(given, 80) if given.strip() else "no image"
            raise self.error(line, f"names {named}; paths start at the file's folder or data_dir, and stay in it")
        return inside

    def marks(self, uncertain: str) -> Iterator[tuple[float, ...]]:
        """Rows of 0 and 1; what is uncertain is NaN where it is left out. How many there are is said."""
        places = [number for number in range(len(self.header)) if self.is_finding(number)]
        counted = 0
        for line, cells in self.rows:
            given = [cells[place].strip().removesuffix(".0") for place in places]
            if odd := next((place for place, mark in zip(places, given, strict=True) if mark not in MARKS), None):
                raise self.error(
                    line,
                    f"has {one_line(repr(cells[odd]), 40)} under {one_line(self.header[odd], 40)}; a finding's column "
                    "holds 1, 0, -1 (uncertain) or nothing. Remove a column that is no finding",
                )
            found = [MARKS[mark] for mark in given]
            counted += found.count(-1.0)
            yield tuple(UNCERTAIN[uncertain] if mark < 0 else mark for mark in found)
        if counted:
            taken = "left out" if uncertain == "leave-out" else f"taken as {uncertain}"
            warn_once(f"{self.path.name}: {quantity(counted, 'uncertain label')} (-1) {taken}")

    def error(self, line: int, text: str) -> ModelInputError:
        """An error that names the line."""
        return ModelInputError("data", f"{self.path}, line {line}, {text}")


def _joined(cells: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]:
    """The findings' names, and rows of 0 and 1, of cells that join the names of each image's findings."""
    named = [{name.strip() for name in cell.split("|")} for cell in cells]
    spelled: Mapping[str, None] = dict.fromkeys(sorted(name for each in named for name in each if name))
    classes = tuple(name for name in spelled if name.lower() != NONE)
    return classes, tuple(tuple(float(name in each) for name in classes) for each in named)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or none
        return False
