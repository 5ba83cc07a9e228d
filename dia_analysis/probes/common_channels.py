"""Do channel numbers mean the same in the layers of a stage? Else r between their maps means nothing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dia_analysis.distributed import all_gather
from dia_analysis.probes.alignment import aligned_layers
from dia_analysis.probes.batches import inputs_of, iterate_batches
from dia_analysis.probes.found import IMAGES
from dia_analysis.probes.modes import autocast_off, evaluating
from dia_analysis.probes.stages import StageMaps

Aligned = Bool[Tensor, "layer layer"]


@dataclass
class Remembered:
    """Batches of which the first two images are kept."""

    batches: Iterable[Any]
    images: Tensor | None = None

    def __iter__(self) -> Iterator[Any]:
        """The batches as they are."""
        for batch in iterate_batches(self.batches):
            if self.images is None:
                self.images = inputs_of(batch)[:IMAGES]
            yield batch


@dataclass(frozen=True)
class CommonChannels:
    """Which two of these layers, given as (name, call) of their points, are aligned."""

    layers: tuple[tuple[str, int], ...] = ()
    aligned: Aligned = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))

    @classmethod
    def of(cls, model: nn.Module, images: Tensor, layers: Sequence[tuple[str, int]]) -> "CommonChannels":
        """What passes on some of the images show; the network is left as it was."""
        if len(layers) < 2:
            return cls()
        images = images.to(next(chain(model.parameters(), model.buffers()), torch.empty(0)).device)
        with evaluating(model), autocast_off(model):
            return cls(tuple(layers), aligned_layers(model, images, layers))

    def among(self, stage: StageMaps) -> Aligned | None:
        """Which two layers of a stage are aligned; None where that is not known, or has no meaning.

        It is known for gates of channels that a pass shows, and for those of one shared module.
        """
        if not _asks(stage):
            return None
        if _one_module(stage):
            return torch.ones(len(stage.layers), len(stage.layers), dtype=torch.bool)
        if not set(stage.layers) <= set(self.layers):
            return None
        places = torch.tensor([self.layers.index(layer) for layer in stage.layers])
        aligned = self.aligned[places][:, places]
        return aligned if aligned.diagonal().all() else None  # not shown: a module named by hand


def of_stages(model: nn.Module, images: Tensor | None, stages: Sequence[StageMaps]) -> list[Aligned | None]:
    """For each stage, which two of its layers are aligned, as `CommonChannels.among` says.

    `images` is None in a process that was given none, which learns it from the others.
    """
    mine = None
    if images is not None:
        asked = [stage.layers for stage in stages if _asks(stage) and not _one_module(stage)]
        common = CommonChannels.of(model, images, list(chain.from_iterable(asked)))
        mine = [common.among(stage) for stage in stages]
    return next(found for found in all_gather(mine) if found is not None)


def _asks(stage: StageMaps) -> bool:
    return stage.kind == "channel" and len(stage.layers) > 1


def _one_module(stage: StageMaps) -> bool:
    return len({module for module, _ in stage.layers}) == 1
