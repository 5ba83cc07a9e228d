"""Run a network over batches of images and hand on its attention maps, batch by batch."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.capture import capture
from dia_analysis.errors import AnalysisInputError
from dia_analysis.modes import evaluating
from dia_analysis.stages import StageMaps, group_stages


def stream_stages(
    model: nn.Module,
    batches: Iterable[Any],
    consume: Callable[[list[StageMaps]], None],
    *,
    points: str | Iterable[str] | None = None,
) -> int:
    """Call `consume` with every batch's attention maps, grouped into stages; give the number of images.

    `batches` yields the network's input (batch, channel, height, width), alone or first in a tuple; it is moved
    to the network's device. `points` are shell patterns of module names, by default every attention gate.
    The network runs in evaluation mode and is left as it was.
    Raises AnalysisInputError if nothing can be captured, if `batches` is empty, and if a batch ran other layers
    than the first one.
    """
    reference = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    layers: list[tuple[tuple[str, int], ...]] = []
    images = 0
    with evaluating(model), torch.no_grad(), capture(model, points) as records:
        for batch in batches:
            inputs = batch if isinstance(batch, Tensor) else batch[0]
            model(inputs.to(reference.device))
            stages = group_stages(records.in_order())
            layers = layers or [stage.layers for stage in stages]
            if layers != [stage.layers for stage in stages]:
                raise AnalysisInputError("model", "the network ran other layers for this batch than for the first one")
            consume(stages)
            images += len(inputs)
        if not images:
            raise AnalysisInputError("data", "there are no images to analyse")
    return images
