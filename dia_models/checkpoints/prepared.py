"""A network and the images that it is to see, prepared as it expects them: what analyses of any kind start from."""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dia_models.checkpoints.checkpoint import Checkpoint, CheckpointInfo
from dia_models.checkpoints.untrained import UntrainedNetwork, has_statistics, untrained_network
from dia_models.data import Batch, Preprocessing, evenly_spaced
from dia_models.data.labels import class_numbers
from dia_models.data.selection import Selection
from dia_models.errors import ModelInputError
from dia_models.spec import Network
from dia_models.training.distributed import rank, world_size

STATISTICS_IMAGES = 1024
Prepared = TypeVar("Prepared", bound="PreparedNetwork")


@dataclass(frozen=True)
class PreparedNetwork:
    """A network on the images' device.

    `checkpoint` is where it was read from, None for one with random weights, which were made from `weights_seed`.
    """

    name: str
    model: Network
    images: Selection
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    checkpoint: Checkpoint | None = None
    weights_seed: int = 0

    @classmethod
    def of_checkpoint(cls: type[Prepared], checkpoint: Checkpoint, images: Any) -> Prepared:
        """Build a checkpoint's network. Raises ModelInputError if its weights do not fit it."""
        model, info = checkpoint.build(), checkpoint.info
        model.to(images.device).to(memory_format=torch.channels_last)
        return cls(checkpoint.name, model, images, info.preprocessing, info.classes, checkpoint)

    @property
    def architecture(self) -> Hashable:
        """What runs of one network have in common: all but the seed."""
        return self.model.spec.model_dump_json(), self.classes

    @property
    def info(self) -> CheckpointInfo | None:
        """What the checkpoint says of itself."""
        return None if self.checkpoint is None else self.checkpoint.info

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

    def batches(self, label: str) -> Iterator[Tensor]:
        """The images alone."""
        return (pixels for pixels, _ in self.shown(label))

    def labelled(self, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """With the numbers of their classes. Raises ModelInputError for classes that the network does not know."""
        numbers = class_numbers(self.images.source, self.classes, self.images.data)
        return ((pixels, numbers[batch.labels]) for pixels, batch in self.shown(label))

    def answered(self, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same, with -1 for images of unknown classes."""
        try:
            return self.labelled(label)
        except ModelInputError:
            return ((pixels, torch.full((len(pixels),), -1)) for pixels in self.batches(label))

    def located(self, rows: list[int], label: str) -> Iterator[tuple[Tensor, list[int]]]:
        """The images at these positions among the chosen ones, batch by batch, with the positions of those read."""
        indices = [self.images.chosen[row] for row in rows]
        position = {self.images.source.name(index): row for index, row in zip(indices, rows, strict=True)}
        for pixels, batch in self.shown(label, indices):
            yield pixels, [position[name] for name in batch.names]

    def untrained(self) -> UntrainedNetwork:
        """A checkpoint's network before its training, on the device; see `untrained_network`."""
        assert self.checkpoint is not None
        found = untrained_network(self.checkpoint)
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
