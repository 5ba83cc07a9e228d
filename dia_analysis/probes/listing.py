"""What can be captured of a network: a row for each use of attention."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from dia_analysis.probes.capture import capture
from dia_analysis.probes.example import example_images
from dia_analysis.probes.graph import looking
from dia_analysis.probes.modes import autocast_off, evaluating
from dia_analysis.probes.points import Inputs, attention_of
from dia_analysis.probes.stages import group_stages


@dataclass(frozen=True)
class Point:
    """One call of a point. `shape` is that of an image's map, `stage` the stage it belongs to, from 1.

    What is of no use for an analysis has a `reason` and no stage.
    """

    name: str
    call: int
    kind: str
    shape: tuple[int, ...]
    stage: int | None = None
    reason: str = ""

    @property
    def usable(self) -> bool:
        """Whether its maps can be captured."""
        return not self.reason


def find_points(
    model: nn.Module,
    inputs: Inputs | None = None,
    *,
    points: str | Iterable[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> list[Point]:
    """What `capture` takes of a network, in forward order, and last what it cannot take; empty without attention.

    Attention is found by what the network does in one pass in evaluation mode, whatever its modules are called: factors
    that are made from the input and multiply features (gates), and normalized matrices that add up values
    (self-attention).

    Args:
        model: Any network; it is left as it was.
        inputs: What the pass is given: images (batch, channel, height, width), or the arguments of `forward` as a tuple
            or by name. By default two random images of the network's own size, or of 64 pixels.
        points: Shell patterns as for `capture`; by default all attention.
        image_size: The side in pixels, or (height, width), of those random images.

    Returns:
        A point for each map of each call; `usable` says whether it is captured, `reason` why not.

    Raises:
        AnalysisInputError: If the network cannot be run so, or a pattern matches nothing.
    """
    found = attention_of(model, inputs, image_size)
    useless = [Point(one.name, one.call, one.kind, one.shape, None, one.reason) for one in found if not one.usable]
    if points is None and len(useless) == len(found):
        return useless
    given = example_images(model, image_size) if inputs is None else inputs
    with looking(), evaluating(model), autocast_off(model), torch.no_grad(), capture(model, points) as records:
        if isinstance(given, Mapping):
            model(**given)
        else:
            model(*(given if isinstance(given, tuple) else (given,)))
    stages = {
        layer: number for number, stage in enumerate(group_stages(records.in_order()), 1) for layer in stage.layers
    }
    rows = [
        Point(r.module, r.call, r.kind, tuple(r.value.shape[1:]), stages[r.module, r.call]) for r in records.in_order()
    ]
    return rows + (useless if points is None else [])
