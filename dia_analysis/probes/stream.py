"""Run a network over batches of images and hand on its attention maps, batch by batch."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import nn

from dia_analysis.distributed import all_gather
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.batches import blaming_whole_numbers, inputs_of, iterate_batches
from dia_analysis.probes.capture import capture
from dia_analysis.probes.modes import autocast_off, evaluating
from dia_analysis.probes.stages import StageMaps, group_stages

Consume = Callable[[list[StageMaps]], None]


def stream_stages(
    model: nn.Module,
    batches: Iterable[Any],
    consume: Consume,
    *,
    points: str | Iterable[str] | None = None,
) -> int:
    """Call a function with every batch's attention maps, grouped into stages.

    Of several processes, each is given its own share of the batches, perhaps none.

    Args:
        model: The network; it runs in evaluation mode and is left as it was.
        batches: The network's input (batch, channel, height, width), as `iterate_batches` says; it is moved to the
            network's device.
        consume: Is given the `StageMaps` of a batch.
        points: Shell patterns as for `capture`; by default all attention.

    Returns:
        The number of images, of all processes together.

    Raises:
        AnalysisInputError: If nothing can be captured, if there is no image, if a batch ran other layers than the first
            one, and if a module does not give one map per image.
    """
    images = sum(all_gather(stream_share(model, batches, consume, points=points)))
    if not images:
        raise AnalysisInputError("data", "there are no images to analyze")
    return images


def stream_share(
    model: nn.Module, batches: Iterable[Any], consume: Consume, *, points: str | Iterable[str] | None = None
) -> int:
    """Do what `stream_stages` does for this process alone; there may be no batch."""
    waiting = iterate_batches(batches)
    first = next(waiting, None)
    if first is None:
        return 0
    reference = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    layers: list[tuple[tuple[str, int], ...]] = []
    images = 0
    with evaluating(model), autocast_off(model), torch.no_grad(), capture(model, points) as records:
        for batch in chain([first], waiting):
            inputs = inputs_of(batch)
            with blaming_whole_numbers(inputs):
                model(inputs.to(reference.device))
            if not records:
                break  # no named module ran, which leaving the block says
            stages = group_stages(records.in_order())
            layers = layers or [stage.layers for stage in stages]
            if layers != [stage.layers for stage in stages]:
                raise AnalysisInputError("model", "the network ran other layers for this batch than for the first one")
            _check_one_map_per_image(stages, len(inputs))
            consume(stages)
            images += len(inputs)
    return images


def _check_one_map_per_image(stages: list[StageMaps], images: int) -> None:
    for stage in stages:
        if len(stage.maps) != images:
            raise AnalysisInputError(
                "points",
                f"{stage.layers[0][0]} gives {len(stage.maps)} maps for {images} images, for example one per window of "
                "an image; only modules that give one map per image can be analyzed",
            )
