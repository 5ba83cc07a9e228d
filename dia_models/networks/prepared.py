"""A network and the images that it is to see, prepared as it expects them: what analyses of any kind start from."""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dia_models.checkpoints.untrained import UntrainedNetwork, has_statistics
from dia_models.data import Batch, Preprocessing, evenly_spaced
from dia_models.data.labels import class_numbers, numbered
from dia_models.data.selection import Selection
from dia_models.errors import ModelInputError
from dia_models.networks.opened import OpenedNetwork
from dia_models.training.distributed import rank, world_size

STATISTICS_IMAGES = 1024
Prepared = TypeVar("Prepared", bound="PreparedNetwork")


@dataclass(frozen=True)
class PreparedNetwork:
    """A network on the images' device."""

    network: OpenedNetwork
    images: Selection

    @classmethod
    def on_device(cls: type[Prepared], network: OpenedNetwork, images: Any) -> Prepared:
        """Move the network to the images' device."""
        network.model.to(images.device).to(memory_format=torch.channels_last)
        return cls(network, images)

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    @property
    def model(self) -> nn.Module:
        """The network itself."""
        return self.network.model

    @property
    def preprocessing(self) -> Preprocessing:
        """What its images go through."""
        return self.network.preprocessing

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of its classes, if they are known."""
        return self.network.classes

    @property
    def architecture(self) -> Hashable:
        """What runs of one network of this library have in common: all but the seed."""
        spec = self.network.spec
        return self.name if spec is None else (spec.model_dump_json(), self.classes)

    def of(self: Prepared, images: Any) -> Prepared:
        """The network with other images."""
        return replace(self, images=images)

    def watch(self, batches: Iterable[Batch], count: int, label: str) -> Iterable[Batch]:
        """Pass on so many batches; a subclass may say how far it is. `label` says what for."""
        return batches

    def shown(self, label: str, indices: list[int] | None = None) -> Iterator[tuple[Tensor, Batch]]:
        """The images, batch by batch: (batch, channel, height, width), normalized, with what they were read as.

        Those at the `indices`, or those chosen: of several processes, each gets its share.
        """
        size, mine = self.images.batch_size, indices
        if mine is None:
            mine = [i for n, i in enumerate(self.images.chosen) if n // size % world_size() == rank()]
        for batch in self.watch(self.images.batches(mine, self.preprocessing), -(-len(mine) // size), label):
            yield self.preprocessing(batch.pixels.to(self.images.device)), batch

    def pictures(self, size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
        """What the network sees of the images, at this size, `count` at a time: (image, height, width, 3) bytes."""
        return self.images.pictures(self.preprocessing.at(*size), count)

    def batches(self, label: str) -> Iterator[Tensor]:
        """The images alone."""
        return (pixels for pixels, _ in self.shown(label))

    def labelled(self, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """With the numbers of their classes, or rows of 0 and 1 if each is of several.

        Raises ModelInputError for classes that the network does not know.
        """
        numbers = class_numbers(self.images.source, self.network.outputs, self.images.data)
        return ((pixels, numbered(batch.labels, numbers, self.images.data)) for pixels, batch in self.shown(label))

    def answered(self, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same, with -1 for images of unknown classes, or of several."""
        try:
            numbers = class_numbers(self.images.source, self.network.outputs, self.images.data)
        except ModelInputError:
            numbers = torch.empty(0, dtype=torch.int64)
        for pixels, batch in self.shown(label):
            known = batch.labels.ndim == 1 and bool(len(numbers) and batch.labels.max() < len(numbers))
            unknown = torch.full((len(pixels),), -1)
            yield pixels, numbered(batch.labels, numbers, self.images.data) if known else unknown

    def located(self, rows: list[int], label: str) -> Iterator[tuple[Tensor, list[int]]]:
        """The images at these positions among the chosen ones, batch by batch, with the positions of those read."""
        indices = [self.images.chosen[row] for row in rows]
        position = {self.images.source.name(index): row for index, row in zip(indices, rows, strict=True)}
        for pixels, batch in self.shown(label, indices):
            yield pixels, [position[name] for name in batch.names]

    def untrained(self) -> UntrainedNetwork | None:
        """The network before its training, on the device; None if its weights are random anyway."""
        if (found := self.network.untrained()) is not None:
            found.model.to(self.images.device).to(memory_format=torch.channels_last)
        return found

    def reestimate(self, model: nn.Module) -> int:
        """Give a network's batch norms the statistics of up to 1,024 of the images; how many, 0 without batch norms."""
        if not has_statistics(model):
            return 0
        chosen = self.images.chosen
        some = [chosen[i] for i in evenly_spaced(min(STATISTICS_IMAGES, len(chosen)), len(chosen))]
        with torch.random.fork_rng():
            torch.manual_seed(self.images.seed)  # of dropout
            torch.optim.swa_utils.update_bn((pixels for pixels, _ in self.shown("statistics", some)), model)
        model.eval()
        return len(some)
