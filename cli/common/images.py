"""The images that a command shows to networks: named one by one, or some of a data set."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cli.common.console import tracked
from cli.common.options import DataOptions
from cli.common.publish import report_skipped
from dia_analysis import Provenance
from dia_analysis.distributed import all_gather, share
from dia_models import Checkpoint, ModelInputError
from dia_models.data import (
    Batch,
    ImageSource,
    MemoryImages,
    Preprocessing,
    default_preprocessing,
    evenly_spaced,
    open_data,
    open_files,
)
from dia_models.data.labels import class_numbers
from dia_models.training.device import choose_device, keep_freed_memory

if TYPE_CHECKING:
    from dia_analysis import ImageList

ANALYSED, EXPLAINED, MEASURED = 1000, 4, 512
"""Images that are analysed, explained, and whose gradients are measured by default."""


@dataclass(frozen=True)
class SelectedImages:
    """Images of `source` at the indices `chosen`, and where and in what batches networks see them.

    `selection` says how they were chosen; `named` that it was one by one.
    """

    data: str
    source: ImageSource
    chosen: list[int]
    selection: str
    device: torch.device
    batch_size: int
    seed: int
    named: bool = False

    def shown(
        self, preprocessing: Preprocessing, label: str, indices: list[int] | None = None
    ) -> Iterator[tuple[Tensor, Batch]]:
        """The images as a network expects them, batch by batch, with a progress bar.

        Those at the `indices`, or those chosen: of several processes, each gets its share.
        """
        mine = share(self.chosen, self.batch_size) if indices is None else indices
        for batch in tracked(self._read(mine, preprocessing), -(-len(mine) // self.batch_size), label):
            yield preprocessing(batch.pixels.to(self.device)), batch

    def labelled(
        self, preprocessing: Preprocessing, classes: tuple[str, ...], label: str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the numbers of their classes, as a network counts these. Raises ModelInputError."""
        numbers = class_numbers(self.source, classes, self.data)
        return ((pixels, numbers[batch.labels]) for pixels, batch in self.shown(preprocessing, label))

    def _read(self, indices: list[int], preprocessing: Preprocessing) -> Iterator[Batch]:
        try:
            yield from self.source.batches(indices, self.batch_size, preprocessing.size, len(preprocessing.mean))
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

    def of(self, names: Iterable[str]) -> "SelectedImages":
        """The images of these names in the same data."""
        index = {self.source.name(i): i for i in range(len(self.source))}
        return replace(self, chosen=[index[name] for name in names])

    def paths(self) -> tuple[str, ...]:
        """The readable images' names: the path where images were named, else as the data set calls them."""
        root = getattr(self.source, "root", Path()) if self.named else Path()
        return tuple(str(root / self.source.name(index)) for index in self.readable())

    def labels(self) -> tuple[str | None, ...]:
        """The readable images' classes in the data set."""
        numbers = [int(self.source.labels[index]) for index in self.readable()]
        return tuple(self.source.classes[number] if number >= 0 else None for number in numbers)

    def pictures(self, size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
        """The readable images in colour, `count` at a time: (image, height, width, 3) bytes."""
        return (batch.pixels.numpy() for batch in self.source.batches(self.readable(), count, size, 3))

    def image_list(self) -> "ImageList":
        """The chosen images' names and labels, and the names of the classes."""
        from dia_analysis import ImageList  # late: it loads Zarr

        labels = tuple(int(self.source.labels[index]) for index in self.chosen)
        return ImageList(tuple(self.names()), labels, self.source.classes)

    def provenance(self, checkpoint: Checkpoint | None) -> Provenance:
        """Where the results of a network on these images come from."""
        return Provenance(
            checkpoint=None if checkpoint is None else checkpoint.name,
            checkpoint_sha256=None if checkpoint is None else checkpoint.sha256,
            data=self.data,
            selection=self.selection,
            seed=self.seed,
        )

    def __len__(self) -> int:
        return len(self.chosen)

    def some(self, count: int) -> "SelectedImages":
        """So many images of the same data, at equal distances, in batches of about one size."""
        chosen, selection = spread_out(count, self.source, self.seed), _selection(count, self.source)
        size = in_even_batches(count, self.batch_size)
        return replace(self, chosen=chosen, selection=selection, named=False, batch_size=size)

    def first(self, count: int) -> "SelectedImages":
        """The first ones that can be read, at most so many."""
        return replace(self, chosen=self.readable()[:count])

    def preprocessing(self, size: int | None) -> Preprocessing:
        """What suits the chosen images, for networks with random weights; a data set in files is read once for it."""
        if isinstance(self.source, MemoryImages):
            return default_preprocessing(self.data, self.source.pixels[self.chosen])
        return default_preprocessing(
            self.data, self.source.take(self.chosen).load(None if size is None else (size, size), 3).pixels
        )

    def blamed(self, error: ModelInputError) -> ModelInputError:
        """An error on reading an image, naming where it was given."""
        return ModelInputError("IMAGES" if self.named else error.argument, str(error))

    def report_unreadable(self) -> None:
        """Name the files that were skipped."""
        skipped = {name: why for each in all_gather(dict(self.source.unreadable)) for name, why in each.items()}
        report_skipped(skipped, len(self.chosen))


def select_images(
    options: DataOptions, default: str, otherwise: int = ANALYSED, paths: Sequence[Path] = ()
) -> SelectedImages:
    """Open the images: those at `paths`, or `options.images` of the data set, else `otherwise` or all there are.

    Raises ModelInputError if they do not exist or both ways of choosing are used.
    """
    device = prepared_device(options.device)
    where: Any = {"device": device, "batch_size": options.batch_size, "seed": options.seed}
    if paths:
        source = _open_named(paths, options)
        selection = f"{len(source)} images, named one by one"
        return SelectedImages("files", source, list(range(len(source))), selection, named=True, **where)
    data = options.data or default
    source = open_part(options, data, "any")
    count = options.images or min(otherwise, len(source))
    if count > len(source):
        raise ModelInputError("images", f"{count} images asked for, {data} has {len(source)}; give at most that many")
    return SelectedImages(data, source, spread_out(count, source, options.seed), _selection(count, source), **where)


def select_labelled(
    options: DataOptions, first: Checkpoint | None, image_size: int | None = None
) -> tuple[SelectedImages, Preprocessing]:
    """The images to measure gradients on, by default those that the first checkpoint was tested on, or digits.

    Networks with random weights see them as the first checkpoint does, or else in `image_size` or the size they have.
    """
    images = select_images(options, first.info.data if first else "digits", MEASURED)
    if not images.source.classes:
        class_numbers(images.source, (), images.data)
    batch_size = in_even_batches(len(images.chosen), options.batch_size)
    fresh = first.info.preprocessing if first else images.preprocessing(image_size)
    return replace(images, batch_size=batch_size), fresh


def in_even_batches(count: int, at_most: int) -> int:
    """A batch size of at most `at_most` that leaves no small rest: 360 images in batches of 120, not 128, 128, 104."""
    return -(-count // -(-count // at_most))


def open_part(options: DataOptions, data: str, split: str) -> ImageSource:
    """A part of a data set."""
    how: Any = {"workers": options.workers, "strict": options.strict, "download": options.download}
    return open_data(data, split, options.data_dir, **how)


def _open_named(paths: Sequence[Path], options: DataOptions) -> ImageSource:
    for option, value in (("data", options.data), ("images", options.images)):
        if value is not None:
            raise ModelInputError(option, f"{value} given beside images named one by one; give one or the other")
    try:
        return open_files(paths, workers=options.workers, strict=options.strict)
    except ModelInputError as error:
        raise ModelInputError("IMAGES", str(error)) from error


def spread_out(count: int, source: ImageSource, seed: int) -> list[int]:
    """So many images at equal distances, in random order, so that the first few are of several classes."""
    chosen = evenly_spaced(count, len(source))
    Random(seed).shuffle(chosen)
    return chosen


def _selection(count: int, source: ImageSource) -> str:
    return f"{count} of {len(source)} images at equal distances, in random order"


def prepared_device(name: str) -> torch.device:
    """The device of this process: of several on one machine, each has a GPU of its own if there are any."""
    own = os.environ.get("LOCAL_RANK")
    device = choose_device(f"cuda:{own}" if own and name in ("auto", "cuda") and torch.cuda.is_available() else name)
    if device.type == "cpu":
        keep_freed_memory()
    return device
