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
from cli.common.networks import Candidate
from cli.common.options import DataOptions
from cli.common.publish import report_skipped
from dia_analysis import Provenance
from dia_analysis.distributed import all_gather, share
from dia_models import ModelInputError
from dia_models.data import (
    Batch,
    ImageSource,
    MemoryImages,
    Outputs,
    Preprocessing,
    PythonImages,
    as_pictures,
    default_preprocessing,
    evenly_spaced,
    open_data,
    open_files,
)
from dia_models.data.labels import class_numbers
from dia_models.networks.open_network import DataFacts
from dia_models.networks.sources import is_own
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
        numbers, names = [int(self.source.labels[index]) for index in self.readable()], self.source.classes
        return tuple(None if n < 0 else names[n] if names else str(n) for n in numbers)

    def pictures(self, size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
        """The readable images in colour, `count` at a time: (image, height, width, 3) bytes."""
        batches = self.source.batches(self.readable(), count, size, 3)
        return (as_pictures(batch.pixels, size) for batch in batches)

    def image_list(self) -> "ImageList":
        """The chosen images' names and labels, and the names of the classes."""
        from dia_analysis import ImageList  # late: it loads Zarr

        labels = tuple(int(self.source.labels[index]) for index in self.chosen)
        return ImageList(tuple(self.names()), labels, self.source.classes)

    def provenance(self, network: str, sha256: str) -> Provenance:
        """Where the results of a network on these images come from."""
        return Provenance(network, sha256, self.data, self.selection, self.seed)

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

    def facts(self, candidate: Candidate) -> DataFacts:
        """What a network may assume of the chosen images."""
        return data_facts(candidate, self.source, self.data, self.chosen)

    def blamed(self, error: ModelInputError) -> ModelInputError:
        """An error on reading an image, naming where it was given."""
        return ModelInputError("IMAGES" if self.named else error.argument, str(error))

    def report_unreadable(self) -> None:
        """Name the files that were skipped."""
        skipped = {name: why for each in all_gather(dict(self.source.unreadable)) for name, why in each.items()}
        report_skipped(skipped, len(self.chosen))


def select_images(
    options: DataOptions, default: str | None, otherwise: int = ANALYSED, paths: Sequence[Path] = ()
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
    if data is None:
        raise ModelInputError("data", "none given, and no checkpoint says what its network was trained on; name some")
    source = open_part(options, data, "any", otherwise)
    count = options.images or min(otherwise, len(source))
    if count > len(source):
        raise ModelInputError("images", f"{count} images asked for, {data} has {len(source)}; give at most that many")
    return SelectedImages(data, source, spread_out(count, source, options.seed), _selection(count, source), **where)


def select_labelled(options: DataOptions, default: str) -> SelectedImages:
    """The images to measure gradients on. Raises ModelInputError for images that have no labels."""
    images = select_images(options, default, MEASURED)
    classes = images.source.classes
    class_numbers(images.source, Outputs(len(classes), classes), images.data)
    return replace(images, batch_size=in_even_batches(len(images.chosen), options.batch_size))


def data_facts(candidate: Candidate, source: ImageSource, data: str, chosen: list[int]) -> DataFacts:
    """What a network may assume of images; for one of ours with random weights, files are read to know."""
    size = candidate.given.get("image_size")
    shown = None
    if isinstance(source, MemoryImages):
        shown = default_preprocessing(data, source.pixels[chosen])
    elif isinstance(source, PythonImages):
        shown = source.preprocessing()
    elif candidate.random and is_own(candidate.source):
        pixels = source.take(chosen).load(None if size is None else (size[0], size[-1]), 3).pixels
        shown = default_preprocessing(data, pixels)
    return DataFacts(shown, source.classes)


def in_even_batches(count: int, at_most: int) -> int:
    """A batch size of at most `at_most` that leaves no small rest: 360 images in batches of 120, not 128, 128, 104."""
    return -(-count // -(-count // at_most))


def open_part(options: DataOptions, data: str, split: str, otherwise: int = ANALYSED) -> ImageSource:
    """A part of a data set; of what has no length `options.images`, else `otherwise`."""
    how: Any = {"workers": options.workers, "strict": options.strict, "download": options.download}
    how["limit"] = options.images or otherwise
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
