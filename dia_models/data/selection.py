"""Some images of a data set: chosen at equal distances or one by one, read in batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

import numpy as np
import torch

from dia_models.data.image_source import ImageSource
from dia_models.data.images import Batch, evenly_spaced
from dia_models.data.preprocessing import Preprocessing
from dia_models.data.python_images import as_pictures
from dia_models.errors import ModelInputError

CPU = torch.device("cpu")
Some = TypeVar("Some", bound="Selection")


@dataclass(frozen=True)
class Selection:
    """The images of `source`, the data set `data`, at the indices `chosen`.

    `selection` says how they were chosen; `device` is where networks see them.
    """

    data: str
    source: ImageSource
    chosen: list[int]
    selection: str
    batch_size: int
    seed: int
    device: torch.device = CPU

    @classmethod
    def spread(cls: type[Some], data: str, source: ImageSource, count: int, **how: Any) -> Some:
        """So many images at equal distances, in an order drawn from `seed`, so that the first are of several classes.

        Raises ModelInputError if there are fewer.
        """
        if count > len(source):
            message = f"{count} images asked for, {data} has {len(source)}; give at most that many"
            raise ModelInputError("images", message)
        chosen = evenly_spaced(count, len(source))
        Random(how["seed"]).shuffle(chosen)
        return cls(data, source, chosen, f"{count} of {len(source)} images at equal distances, in random order", **how)

    def __len__(self) -> int:
        return len(self.chosen)

    def some(self: Some, count: int) -> Some:
        """So many images of the same data, at equal distances, in batches of about one size."""
        found = Selection.spread(self.data, self.source, count, batch_size=self.batch_size, seed=self.seed)
        return replace(self, chosen=found.chosen, selection=found.selection).in_even_batches()

    def first(self: Some, count: int) -> Some:
        """The first ones that can be read, at most so many."""
        return replace(self, chosen=self.readable()[:count])

    def of(self: Some, names: Iterable[str]) -> Some:
        """The images of these names in the same data."""
        index = {self.source.name(i): i for i in range(len(self.source))}
        return replace(self, chosen=[index[name] for name in names])

    def in_even_batches(self: Some) -> Some:
        """In batches that leave no small rest: 360 images in batches of 120, not 128, 128, 104."""
        return replace(self, batch_size=-(-len(self) // -(-len(self) // self.batch_size)))

    def batches(self, indices: list[int], preprocessing: Preprocessing) -> Iterator[Batch]:
        """The images at some of the chosen indices, of the size and with the channels that a network takes.

        Raises ModelInputError if none of all that are chosen can be read.
        """
        try:
            yield from self.source.batches(indices, self.batch_size, preprocessing.framing, len(preprocessing.mean))
        except ModelInputError:
            unreadable = self.source.unreadable
            if len(indices) == len(self.chosen) or not all(self.source.name(i) in unreadable for i in indices):
                raise  # else the images of a share, none of which can be read, while others can

    def readable(self) -> list[int]:
        """The indices of the chosen images that are not known to be unreadable."""
        return [index for index in self.chosen if self.source.name(index) not in self.source.unreadable]

    def names(self) -> list[str]:
        """The chosen images' names: paths below the data's folder, or `#number` for data without file names."""
        return [self.source.name(i) for i in self.chosen]

    def labels(self) -> tuple[str | None, ...]:
        """The readable images' classes in the data set; of several findings, which of them each `has`."""
        if (rows := getattr(self.source, "rows", None)) is not None:
            found = (
                [name for name, mark in zip(self.source.classes, rows[index], strict=True) if mark == 1]
                for index in self.readable()
            )
            return tuple(f"has {', '.join(names) or 'none'}" for names in found)
        numbers, names = [int(self.source.labels[index]) for index in self.readable()], self.source.classes
        return tuple(None if n < 0 else names[n] if names else str(n) for n in numbers)

    def pictures(self, shown: Preprocessing, count: int) -> Iterator[np.ndarray]:
        """What a network sees of the readable images, in color, `count` at a time: (image, height, width, 3) bytes."""
        batches = self.source.batches(self.readable(), count, shown.framing, 3)
        return (as_pictures(batch.pixels, shown.size) for batch in batches)

    def mean_picture(self, shown: Preprocessing) -> np.ndarray:
        """The mean of what a network sees of the readable images, in gray: (height, width) bytes."""
        indices = self.readable()
        batches = self.source.batches(indices, 64, shown.framing, 1)
        total = sum(as_pictures(batch.pixels, shown.size, 1)[..., 0].astype(float).sum(0) for batch in batches)
        return np.asarray(np.round(total / len(indices)), dtype=np.uint8)
