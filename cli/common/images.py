"""The images that an analysis is to see: named one by one, or some of a data set, with labels where it needs them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cli.common.classes import class_numbers
from cli.common.console import note, tracked
from cli.common.grey import warn_of_colour
from cli.common.inputs import Inputs, make_inputs
from cli.common.naming import read_named
from cli.common.networks import in_even_batches
from dia_analysis import Provenance
from dia_models import Checkpoint, ModelInputError
from dia_models.data import (
    FileImages,
    ImageSource,
    MemoryImages,
    Preprocessing,
    default_preprocessing,
    evenly_spaced,
    open_data,
    open_files,
)
from dia_models.training.device import choose_device, keep_freed_memory

EXPLAINED = 4
"""Images that are explained by default."""
MEASURED = 512
"""Images whose gradients are measured by default."""
LARGEST_MAPS = 2 * 2**30


@dataclass(frozen=True)
class Chosen:
    """The images to explain: those of `source` at the indices `chosen`. `selection` says how they were chosen."""

    data: str
    source: ImageSource
    chosen: list[int]
    selection: str
    named: bool

    def readable(self) -> list[int]:
        """The indices of the chosen images that are not known to be unreadable."""
        unreadable = self.source.unreadable if isinstance(self.source, FileImages) else {}
        return [index for index in self.chosen if self.source.name(index) not in unreadable]

    def paths(self) -> tuple[str, ...]:
        """The readable images' names: the path where images were named, else as the data set calls them."""
        if self.named and isinstance(self.source, FileImages):
            return tuple(str(self.source.paths[index]) for index in self.readable())
        return tuple(self.source.name(index) for index in self.readable())

    def labels(self) -> tuple[str | None, ...]:
        """The readable images' classes in the data set."""
        numbers = [int(self.source.labels[index]) for index in self.readable()]
        return tuple(self.source.classes[number] if number >= 0 else None for number in numbers)

    def pictures(self, size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
        """The readable images in colour, `count` at a time: (image, height, width, 3) bytes."""
        for batch in self.source.batches(self.readable(), count, size, 3):
            yield batch.pixels.numpy()

    def blamed(self, error: ModelInputError) -> ModelInputError:
        """An error on reading an image, naming where it was given."""
        return ModelInputError("IMAGES" if self.named else error.argument, str(error))


def choose(data: str, source: ImageSource, count: int, seed: int) -> Chosen:
    """So many images of a data set, at equal distances."""
    chosen = evenly_spaced(count, len(source))
    Random(seed).shuffle(chosen)  # so that the first few are of several classes
    selection = f"{count} of {len(source)} images at equal distances, in random order"
    return Chosen(data, source, chosen, selection, named=False)


@dataclass(frozen=True)
class Selection:
    """Which images: files and folders, or `images` of a data set."""

    paths: Sequence[Path]
    data: str | None
    images: int | None
    data_dir: Path | None
    workers: int
    strict: bool
    download: bool = False

    def open(self, default: str, seed: int) -> Chosen:
        """Find them. Raises ModelInputError if they do not exist or both ways of choosing are used."""
        if self.paths:
            return self._named()
        data = self.data or default
        source = open_data(data, "any", self.data_dir, workers=self.workers, strict=self.strict, download=self.download)
        count = self.images or min(EXPLAINED, len(source))
        if count > len(source):
            raise ModelInputError(
                "images", f"{count} images asked for, {data} has {len(source)}; give at most that many"
            )
        return choose(data, source, count, seed)

    def _named(self) -> Chosen:
        for option, value in (("data", self.data), ("images", self.images)):
            if value is not None:
                raise ModelInputError(option, f"{value} given beside images named one by one; give one or the other")
        try:
            source = open_files(self.paths, workers=self.workers, strict=self.strict)
        except ModelInputError as error:
            raise ModelInputError("IMAGES", str(error)) from error
        chosen = list(range(len(source)))
        return Chosen("files", source, chosen, f"{len(chosen)} images, named one by one", named=True)


def open_networks(
    ckpts: Sequence[str], selection: Selection, *, device: str, batch_size: int, seed: int
) -> tuple[list[Inputs], Chosen]:
    """The networks and the images that they are to explain."""
    checkpoints = read_named(ckpts)
    images = selection.open(checkpoints[0].info.data, seed)
    _check_size(images, checkpoints)
    warn_of_colour(checkpoints, images.source, images.chosen)
    shared: Any = {"device": device, "batch_size": batch_size, "seed": seed}
    return [make_inputs(c, images.data, images.source, images.chosen, **shared) for c in checkpoints], images


def _check_size(images: Chosen, checkpoints: Sequence[Checkpoint]) -> None:
    pixels = max(c.info.preprocessing.height * c.info.preprocessing.width for c in checkpoints)
    need = 4 * pixels * len(images.chosen) * len(checkpoints)
    if need > LARGEST_MAPS:
        raise ModelInputError(
            "images",
            f"the maps of {len(images.chosen)} images would take {need / 2**30:.1f} GiB; at most 2 are written, so "
            "give fewer, or use dia_analysis.stream_gradcam",
        )


@dataclass(frozen=True)
class LabelledImages:
    """Chosen images of a data set with labels; `fresh` says how networks with random weights see them."""

    data: str
    source: ImageSource
    chosen: list[int]
    batch_size: int
    device: torch.device
    seed: int
    fresh: Preprocessing

    def batches(
        self, preprocessing: Preprocessing, classes: tuple[str, ...], label: str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as a network expects them and the numbers of their classes, batch by batch, with a progress bar."""
        numbers = class_numbers(self.source, classes, self.data)
        channels = len(preprocessing.mean)
        batches = self.source.batches(self.chosen, self.batch_size, preprocessing.size, channels)
        for batch in tracked(batches, -(-len(self.chosen) // self.batch_size), label):
            yield preprocessing(batch.pixels.to(self.device)), numbers[batch.labels]

    def provenance(self, checkpoint: Checkpoint | None) -> Provenance:
        """Where the gradients of a network come from."""
        return Provenance(
            checkpoint=None if checkpoint is None else checkpoint.name,
            checkpoint_sha256=None if checkpoint is None else checkpoint.sha256,
            data=self.data,
            selection=f"{len(self.chosen)} of {len(self.source)} images at equal distances, in random order",
            seed=self.seed,
        )

    def report_unreadable(self) -> None:
        """Name the files that were skipped."""
        if isinstance(self.source, FileImages):
            for name, reason in sorted(self.source.unreadable.items()):
                note(f"warning: skipped {name}: {reason}")


def open_labelled(
    data: str | None,
    first: Checkpoint | None,
    images: int | None,
    *,
    data_dir: Path | None,
    download: bool = False,
    image_size: int | None,
    device: str,
    batch_size: int,
    workers: int,
    strict: bool,
    seed: int,
) -> LabelledImages:
    """Open the images: by default those that the first checkpoint was tested on, or digits.

    `image_size` is for networks with random weights, which otherwise see the images as the first checkpoint does, or
    in the size they have.
    """
    data = data or (first.info.data if first else "digits")
    source = open_data(data, "any", data_dir, workers=workers, strict=strict, download=download)
    if images is not None and images > len(source):
        raise ModelInputError("images", f"{images} images asked for, {data} has {len(source)}; give at most that many")
    if not source.classes:
        class_numbers(source, (), data)
    chosen = _chosen(source, images or min(MEASURED, len(source)), seed)
    fresh = first.info.preprocessing if first else _measured(data, source, chosen, image_size)
    where = choose_device(device)
    if where.type == "cpu":
        keep_freed_memory()
    return LabelledImages(data, source, chosen, in_even_batches(len(chosen), batch_size), where, seed, fresh)


def labelled(inputs: Inputs, images: int, batch_size: int) -> LabelledImages:
    """So many of the images that are open for a checkpoint."""
    chosen, fresh = _chosen(inputs.source, images, inputs.seed), inputs.checkpoint.info.preprocessing
    size = in_even_batches(images, batch_size)
    return LabelledImages(inputs.data, inputs.source, chosen, size, inputs.device, inputs.seed, fresh)


def _chosen(source: ImageSource, images: int, seed: int) -> list[int]:
    chosen = evenly_spaced(images, len(source))
    Random(seed).shuffle(chosen)  # so that every batch has all classes
    return chosen


def _measured(data: str, source: ImageSource, chosen: list[int], size: int | None) -> Preprocessing:
    """What suits the chosen images; a data set in files is read once for it."""
    if isinstance(source, MemoryImages):
        return default_preprocessing(data, source.pixels[chosen])
    return default_preprocessing(data, source.take(chosen).load(None if size is None else (size, size), 3).pixels)
