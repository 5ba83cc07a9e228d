"""From a command's options to networks and the images they are to see."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from cli.common.grey import warn_of_colour
from cli.common.images import ANALYSED, SelectedImages, select_images
from cli.common.naming import read_named
from cli.common.options import DataOptions
from dia_analysis import Provenance
from dia_models import Checkpoint, ModelInputError
from dia_models.checkpoints.untrained import has_statistics, untrained_network
from dia_models.data import evenly_spaced
from dia_models.factory import require_classifier

if TYPE_CHECKING:
    from dia_analysis.paper.measure_untrained import Untrained

STATISTICS_IMAGES = 1024


@dataclass(frozen=True)
class Inputs:
    """A checkpoint's network on a device, and the images that it is to see, prepared as it expects them."""

    checkpoint: Checkpoint
    model: nn.Module
    images: SelectedImages

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return self.checkpoint.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The network's classes."""
        return self.checkpoint.info.classes

    @property
    def architecture(self) -> Hashable:
        """What runs of one network have in common: all but the seed."""
        return self.checkpoint.info.model.model_dump_json(), self.classes

    @property
    def recorded(self) -> bool:
        """Whether the checkpoint records a training, and is not of a run's beginning."""
        info = self.checkpoint.info
        return "epochs" in info.recipe and info.epoch != 0

    def of(self, images: SelectedImages) -> Self:
        """The network with other images."""
        return replace(self, images=images)

    def on(self, chosen: list[int]) -> Self:
        """The network with other images of the same data."""
        return self.of(replace(self.images, chosen=chosen))

    def batches(self, label: str) -> Iterator[Tensor]:
        """The images, batch by batch: (batch, channel, height, width), normalised, with a progress bar.

        Of several processes, each gets its share.
        """
        return (pixels for pixels, _ in self.images.shown(self.checkpoint.info.preprocessing, label))

    def labelled(self, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the numbers of their classes. Raises ModelInputError for classes that it does not know."""
        return self.images.labelled(self.checkpoint.info.preprocessing, self.classes, label)

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
        for pixels, batch in self.images.shown(self.checkpoint.info.preprocessing, label, indices):
            yield pixels, [position[name] for name in batch.names]

    def before_training(self) -> "Untrained":
        """The network before its training, batch-norm statistics as they were then, and where its weights come from."""
        from dia_analysis.paper.measure_untrained import Untrained  # late: it loads what measures

        found = untrained_network(self.checkpoint)
        found.model.to(self.images.device).to(memory_format=torch.channels_last)
        return Untrained(found.model, found.weights, found.exact, self.reestimate)

    def reestimate(self, model: nn.Module) -> int:
        """Give a network's batch norms the statistics of up to 1,024 of the images; how many, 0 without batch norms."""
        if not has_statistics(model):
            return 0
        chosen = self.images.chosen
        some = evenly_spaced(min(STATISTICS_IMAGES, len(chosen)), len(chosen))
        preprocessing = self.checkpoint.info.preprocessing
        with torch.random.fork_rng():
            torch.manual_seed(self.images.seed)  # of dropout
            shown = self.images.shown(preprocessing, "statistics", [chosen[i] for i in some])
            torch.optim.swa_utils.update_bn((pixels for pixels, _ in shown), model)
        model.eval()
        return len(some)

    def provenance(self) -> Provenance:
        """Where results from these inputs come from."""
        return self.images.provenance(self.checkpoint)


def open_networks(
    ckpts: Sequence[str], options: DataOptions, otherwise: int = ANALYSED, paths: Sequence[Path] = ()
) -> list[Inputs]:
    """Classifiers, under names that tell them apart, and the same images for all; as `select_images`."""
    checkpoints = read_classifiers(ckpts)
    images = select_images(options, checkpoints[0].info.data, otherwise, paths)
    warn_of_colour(checkpoints, images.source, images.chosen)
    return [make_inputs(checkpoint, images) for checkpoint in checkpoints]


def open_each(ckpts: Sequence[str], options: DataOptions) -> list[Inputs]:
    """The same, each checkpoint with images of its own data where the options name none."""
    return [make_inputs(c, select_images(options, c.info.data)) for c in read_classifiers(ckpts)]


def read_classifiers(ckpts: Sequence[str]) -> list[Checkpoint]:
    """Checkpoints of classifiers, under names that tell them apart. Raises ModelInputError for another network."""
    checkpoints = read_named(ckpts)
    for checkpoint in checkpoints:
        require_classifier(checkpoint.info.model.name, "ckpt")
    return checkpoints


def make_inputs(checkpoint: Checkpoint, images: SelectedImages) -> Inputs:
    """Build a checkpoint's network on the images' device."""
    model = checkpoint.build()
    model.to(images.device).to(memory_format=torch.channels_last)
    return Inputs(checkpoint, model, images)
