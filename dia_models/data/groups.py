"""Whose the images are: patients of the user's own, from a table or from the images' names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from dia_models.data.csv_rows import csv_rows
from dia_models.data.image_source import ImageSource
from dia_models.data.images import FileImages
from dia_models.errors import ModelInputError, one_line, some


def with_groups(source: ImageSource, groups: Path | None = None, pattern: str | None = None) -> ImageSource:
    """The images with the patients, or other groups, that they belong to; as they are if neither is given.

    Args:
        source: The images.
        groups: A CSV file with two columns: an image, as its path below the data's folder or its file's name, and its
            group. A first row of names such as `image,patient` is passed over.
        pattern: A regular expression that is found in the images' names, else in their paths; its first group, or all
            of it, is their group.

    Raises:
        ModelInputError: For both at once, for images without file names, for a file or an expression that cannot be
            read, and for an image that has no group.
    """
    if groups is None and pattern is None:
        return source
    option = "groups" if pattern is None else "group_pattern"
    if groups is not None and pattern is not None:
        raise ModelInputError("group_pattern", f"{pattern!r} given beside a file of groups; give one or the other")
    if not isinstance(source, FileImages):
        raise ModelInputError(option, "the images of this data have no file names to group them by")
    if groups is not None:
        listed = _read(groups)
        return _grouped(source, lambda name: _listed(listed, name), option, f"as {groups.name} says")
    return _grouped(source, _found(str(pattern)), option, f"by {pattern} in the images' names")


def _grouped(source: FileImages, group_of: Callable[[str], str | None], option: str, words: str) -> ImageSource:
    found = {name: group_of(name) for name in map(source.name, range(len(source)))}
    if alone := [name for name, group in found.items() if not group]:
        raise ModelInputError(
            option, f"{len(alone)} of {len(found)} images have no group {words}: {some(alone, 3, 60)}"
        )
    known = {name: str(group) for name, group in found.items()}
    return replace(source, group_of=known.__getitem__, grouping=words)


def _read(path: Path) -> Mapping[str, str]:
    form = "give a CSV file with an image and its group in each row"
    rows = [[cell.strip() for cell in cells] for _, cells in csv_rows(path, "groups", form)]
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise ModelInputError("groups", f"{path}: row {number} has {len(row)} cells; {form}")
        if found.setdefault(row[0].replace("\\", "/"), row[1]) != row[1]:
            raise ModelInputError("groups", f"{path}: row {number} gives {one_line(row[0], 60)} a second group")
    return found


def _listed(groups: Mapping[str, str], name: str) -> str | None:
    path = PurePosixPath(name)
    return next((groups[each] for each in (name, path.name, path.stem) if each in groups), None)


def _found(pattern: str) -> Callable[[str], str | None]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ModelInputError("group_pattern", f"{pattern!r} is no regular expression: {error}") from error

    def group_of(name: str) -> str | None:
        match = compiled.search(PurePosixPath(name).name) or compiled.search(name)
        return None if match is None else match[1 if compiled.groups else 0]

    return group_of
