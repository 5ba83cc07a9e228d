"""Batches of images that depend on nothing but the seed and the epoch, from memory or from files."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from dia_models.data import MemoryImages, StreamedImages, shift_and_mirror
from dia_models.training.distributed import rank, world_size
from dia_models.training.read_images import Images
from dia_models.training.recipe import Recipe

Pixels = UInt8[Tensor, "shown height width channel"]
Labels = Int64[Tensor, "batch"]
Shared = Shaped[Tensor, "batch ..."]


@dataclass(frozen=True)
class Batches:
    """Batches of images in memory: in a new order and augmented when training, both fixed by `seed`.

    The whole set lies on one device; a batch is one gather there, so no loader keeps the network waiting. Of several
    processes, each makes the whole batch, so that it is the one that a single process would make, and takes its share.
    """

    images: MemoryImages
    batch_size: int
    seed: int | None = None
    augment: str = "none"
    padding: int = 0

    def __len__(self) -> int:
        """Batches: the last one may be smaller."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Pixels, Labels]]:
        for pixels, labels in self.whole(torch.Generator(self.images.pixels.device)):
            yield share(pixels), labels[rank() :: world_size()]

    def whole(self, generator: torch.Generator) -> Iterator[tuple[Pixels, Labels]]:
        """The batches of all processes together; what is random comes from `generator`, seeded."""
        device, count = self.images.pixels.device, len(self.images)
        generator.manual_seed(self.seed or 0)
        if self.seed is None:
            order = torch.arange(count, device=device)
        else:
            order = torch.randperm(count, generator=generator, device=device)
        for start in range(0, count, self.batch_size):
            chosen = order[start : start + self.batch_size]
            pixels = self.images.pixels[chosen]
            if self.augment != "none":
                pixels = shift_and_mirror(pixels, self.padding, self.augment == "crop_flip", generator)
            yield pixels, self.images.labels[chosen]


def share(pixels: Shared) -> Shared:
    """This process' part of a batch's images. One that gets none computes on another's, which is not counted."""
    return pixels[rank() :: world_size()] if rank() < len(pixels) else pixels[:1]


@dataclass(frozen=True)
class StreamedBatches:
    """Batches of image files that are decoded while the network computes.

    With a `seed` they are random parts of the images, in a new order.
    Of several processes, each decodes its share of every batch.
    """

    images: StreamedImages
    batch_size: int
    seed: int | None = None

    def __len__(self) -> int:
        """Batches: the last one may be smaller."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Pixels, Labels]]:
        order = torch.arange(len(self.images))
        if self.seed is not None:
            order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(self.seed))]
        whole = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        shown = [(batch[rank() :: world_size()] if rank() < len(batch) else batch[:1]).tolist() for batch in whole]
        for batch, (pixels, labels) in zip(whole, self.images.decode(shown, self.seed), strict=True):
            yield pixels, labels[: len(batch[rank() :: world_size()])]


class TrainingData(L.LightningDataModule):
    """Training batches that depend on nothing but the seed and the epoch; validation batches in fixed order."""

    def __init__(self, train: Images, validation: Images | None, recipe: Recipe, seed: int):
        super().__init__()
        self.train, self.validation, self.recipe, self.seed = train, validation, recipe, seed

    def setup(self, stage: str) -> None:
        """Move the images to the device."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        self.train = self.train.to(device)
        self.validation = None if self.validation is None else self.validation.to(device)

    def train_dataloader(self) -> Batches | StreamedBatches:
        """This epoch's batches."""
        assert self.trainer is not None
        seed = epoch_seed(self.seed, self.trainer.current_epoch)
        if isinstance(self.train, StreamedImages):
            return StreamedBatches(self.train, self.recipe.batch_size, seed)
        return Batches(self.train, self.recipe.batch_size, seed, self.recipe.augment, self.recipe.padding)

    def val_dataloader(self) -> Batches | StreamedBatches | list[Any]:
        """The images held out from training."""
        if isinstance(self.validation, StreamedImages):
            return StreamedBatches(self.validation, self.recipe.batch_size)
        return [] if self.validation is None else Batches(self.validation, self.recipe.batch_size)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch of each run."""
    return seed * 1_000_003 + epoch
