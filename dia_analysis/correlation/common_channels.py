"""Do channel numbers mean the same in the layers of a stage? Else r between their maps means nothing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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


def of_stages(model: nn.Module, images: Tensor | None, stages: Sequence[StageMaps]) -> list[Aligned | None]:
    """For each stage of channel gates, which two layers are aligned; None where that is not known or not asked.

    It is known for gates that a pass shows. Layers that one module serves are aligned. `images` is None in a process
    that was given none, which learns it from the others.
    """
    mine = None if images is None else _of_stages(model, images, stages)
    return next(found for found in all_gather(mine) if found is not None)


def _of_stages(model: nn.Module, images: Tensor, stages: Sequence[StageMaps]) -> list[Aligned | None]:
    found = [of_one_module(stage) for stage in stages]
    asked = {
        n: s.layers for n, s in enumerate(stages) if found[n] is None and s.kind == "channel" and len(s.layers) > 1
    }
    if not asked:
        return found
    images = images.to(next(chain(model.parameters(), model.buffers()), torch.empty(0)).device)
    with evaluating(model), autocast_off(model):
        whole = aligned_layers(model, images, list(chain.from_iterable(asked.values())))
    first = 0
    for number, layers in asked.items():
        aligned = whole[first : first + len(layers), first : first + len(layers)]
        found[number] = aligned if aligned.diagonal().all() else None  # not shown: a module named by hand
        first += len(layers)
    return found


def of_one_module(stage: StageMaps) -> Aligned | None:
    """The channel gates of one shared module are all aligned; None: others, for which maps do not tell."""
    count = len(stage.layers)
    one = count > 1 and stage.kind == "channel" and len({module for module, _ in stage.layers}) == 1
    return torch.ones(count, count, dtype=torch.bool) if one else None
