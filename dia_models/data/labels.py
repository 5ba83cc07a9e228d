"""The classes of data and those that a network knows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dia_models.data.image_source import ImageSource
from dia_models.data.python_images import PythonImages
from dia_models.data.synsets import are_synsets, imagenet_synsets
from dia_models.data.warn_once import warn_once
from dia_models.errors import ModelInputError, some
from dia_models.words import quantity

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Outputs:
    """What a network's outputs stand for: how many there are, their names, and ImageNet's names of them, if known."""

    count: int
    names: tuple[str, ...] | None = None
    synsets: tuple[str, ...] | None = None

    @property
    def classes(self) -> int:
        """How many classes it tells apart: one output tells two."""
        return max(self.count, 2)

    @property
    def words(self) -> tuple[str, ...]:
        """A name for each class: its own, or its number; one name for one output is that of its class 1."""
        if self.names is None:
            return tuple(map(str, range(self.classes)))
        return (f"not {self.names[0]}", self.names[0]) if len(self.names) < self.classes else self.names


def class_numbers(source: ImageSource, outputs: Outputs, data: str) -> Int64[Tensor, "class"]:
    """The number of the network's class for each class of the data; `data` is what errors call it.

    Classes are the same if their names are, but for capitals, `_`, `-` and spaces, or if they are ImageNet's
    (n01440764); the names may leave out synonyms behind a comma. Where the network's classes have no names and are as
    many as the data's, these are taken in alphabetical order, with a warning. Images that Python code gives may have
    the numbers.

    Raises ModelInputError for images without labels, and for a class that the network does not know.
    """
    if not source.classes and (isinstance(source, PythonImages) or getattr(source, "by_number", False)):
        return torch.arange(outputs.classes)
    if not source.classes:
        raise ModelInputError(
            "data", f"{data} has no classes, so its images have no labels; put each class in a folder of its own"
        )
    if outputs.names is not None and len(outputs.names) < outputs.classes:
        outputs = replace(outputs, names=outputs.words)
    in_order = getattr(source, "rows", None) is not None and outputs.names is None
    if in_order and len(source.classes) == outputs.count:
        return torch.arange(outputs.count)  # columns stand as the outputs do
    known = _known(source.classes, outputs, data)
    if foreign := [name for name in source.classes if name not in known]:
        names = some(outputs.names or (), 10, 40)
        raise ModelInputError(
            "data", f"{data} has classes that the network does not know: {some(foreign)}; it knows {names}"
        )
    return torch.tensor([known[name] for name in source.classes])


@dataclass(frozen=True)
class Matched:
    """The findings that data and network both have: their columns in the data, and the network's outputs.

    `unmatched` says in sentences what the other has not.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    outputs: tuple[int, ...]
    unmatched: tuple[str, ...] = ()


def has_rows(source: ImageSource) -> bool:
    """Whether the images' labels are rows of 0 and 1, for several classes at once."""
    if isinstance(source, PythonImages):
        return isinstance(source.label(0), Tensor)
    return getattr(source, "rows", None) is not None


def match_findings(source: ImageSource, outputs: Outputs, data: str) -> Matched:
    """Which columns of labels belong to which outputs, by name; without names, in their order if they are as many.

    Raises ModelInputError if there is none.
    """
    if outputs.names is None or not source.classes:
        first = source.label(0) if isinstance(source, PythonImages) else None
        count = len(first) if isinstance(first, Tensor) else len(source.classes)
        names = outputs.names or source.classes or tuple(map(str, range(count)))
        if count != outputs.count:
            raise ModelInputError(
                "data",
                f"{data} has labels for {quantity(count, 'finding')}, and the network "
                f"{quantity(outputs.count, 'output')} without names; say with classes what they are, one name a line",
            )
        return Matched(names, tuple(range(count)), tuple(range(count)))
    known = _by_name(source.classes, outputs.names)
    columns = tuple(place for place, name in enumerate(source.classes) if name in known)
    if not columns:
        raise ModelInputError(
            "data", f"{data} has labels for {some(source.classes)}; the network knows {some(outputs.names, 10, 40)}"
        )
    found = tuple(known[source.classes[place]] for place in columns)
    return Matched(
        tuple(source.classes[place] for place in columns), columns, found, _unmatched(source, known, outputs)
    )


def _unmatched(source: ImageSource, known: Mapping[str, int], outputs: Outputs) -> tuple[str, ...]:
    labels = [name for name in source.classes if name not in known]
    others = [name for place, name in enumerate(outputs.names or ()) if place not in known.values()]
    parts = (("Labels that no output is named for", labels), ("Outputs without labels", others))
    return tuple(f"{words}, left out: {some(names, 6, 30)}." for words, names in parts if names)


def _known(classes: tuple[str, ...], outputs: Outputs, data: str) -> Mapping[str, int]:
    """The numbers of those classes that the network knows."""
    if outputs.names is not None and all(name in outputs.names for name in classes):
        return {name: outputs.names.index(name) for name in classes}
    if are_synsets(classes):
        return _by_synset(classes, outputs, data)
    if outputs.names is not None:
        return _by_name(classes, outputs.names)
    if len(classes) == outputs.classes:
        warn_once(
            f"the network's outputs have no names: they are taken for {data}'s {len(classes)} classes in alphabetical "
            f"order, {some(classes)} (classes names them)"
        )
        return {name: number for number, name in enumerate(sorted(classes))}
    raise ModelInputError(
        "data",
        f"{data} has {quantity(len(classes), 'class').replace('classs', 'classes')}, and the network "
        f"{quantity(outputs.count, 'output')} without names; say with classes what they are, one name a line",
    )


def _by_synset(classes: tuple[str, ...], outputs: Outputs, data: str) -> Mapping[str, int]:
    listed = outputs.synsets or (imagenet_synsets() if outputs.count == IMAGENET_CLASSES else None)
    if listed is None:
        raise ModelInputError(
            "data",
            f"{data} has ImageNet's class folders ({some(classes, 2)}), and the network's {outputs.count} outputs are "
            "not known to be these classes; say with classes which they are (a list of the 1,000 comes with timm)",
        )
    return {name: listed.index(name) for name in classes if name in listed}


def _by_name(classes: tuple[str, ...], names: Iterable[str]) -> Mapping[str, int]:
    """By names that differ in how they are written only; a name that two outputs have is not known."""
    numbers: dict[str, set[int]] = {}
    for number, name in enumerate(names):
        for written in {name, name.partition(",")[0]}:
            numbers.setdefault(_plain(written), set()).add(number)
    found = {name: numbers.get(_plain(name), set()) for name in classes}
    return {name: next(iter(those)) for name, those in found.items() if len(those) == 1}


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ")


def numbered(
    labels: Int64[Tensor, "image"] | Float[Tensor, "image class"], numbers: Int64[Tensor, "class"], data: str
) -> Int64[Tensor, "image"] | Float[Tensor, "image class"]:
    """Labels as the network counts its classes, -1 where there is none; columns of 0 and 1 are put in order.

    Raises ModelInputError for a label beyond the network's classes.
    """
    if labels.ndim == 2:
        if labels.isnan().any():
            raise ModelInputError(
                "uncertain", f"{data} has uncertain labels, which cannot be left out here; give positive or negative"
            )
        if labels.shape[1] != len(numbers):
            return labels
        rows = torch.zeros(len(labels), int(numbers.max()) + 1, dtype=labels.dtype)
        rows[:, numbers] = labels
        return rows
    if len(labels) and (last := int(labels.max())) >= len(numbers):
        raise ModelInputError("data", f"{data} has a label {last}; the network has {len(numbers)} classes")
    found, known = labels.clone(), labels >= 0
    found[known] = numbers[labels[known]]
    return found
