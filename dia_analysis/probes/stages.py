"""Group captured attention maps into stages and layers."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from string import digits
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.capture import Record


@dataclass(frozen=True)
class StageMaps:
    """The attention maps of one stage: `maps` (image, layer, element), `layers` the (module, call) behind each.

    `kind` says what an element is: a channel, a position of the feature map ("spatial"), how much of one token a head
    adds to another ("self-attention"), or of one of its channels to another ("cross-covariance"). `shape` is that of a
    layer's map before its elements were put in a row, and `feature_size` the (height, width) of the features it belongs
    to, None if there are none. `made_in` is the type in which the network made the maps, None if that is not known or
    is the maps' own.
    """

    kind: str
    layers: tuple[tuple[str, int], ...]
    maps: Float[Tensor, "image layer element"]
    shape: tuple[int, ...] | None = None
    feature_size: tuple[int, int] | None = None
    made_in: torch.dtype | None = None


def group_stages(records: Iterable[Record]) -> list[StageMaps]:
    """Put records into stages: runs of consecutive layers with one map size and one feature size, in forward order.

    Channel and spatial maps, and points of different names (a gate, a cell state), are kept apart.
    Raises AnalysisInputError for a record that is no attention map.
    """
    families: dict[Any, list[tuple[Any, Record]]] = {}
    for record in records:
        kind = _kind(record)
        family = (kind, record.module.rpartition(":" if ":" in record.module else ".")[2].rstrip(digits))
        size = (record.value[0].numel(), record.feature_size)
        families.setdefault(family, []).append((size, record))
    return [
        _stage(family[0], [record for _, record in run])
        for family, members in families.items()
        for _, run in groupby(members, key=lambda member: member[0])
    ]


def _stage(kind: str, records: list[Record]) -> StageMaps:
    maps = torch.stack([record.value.flatten(1) for record in records], dim=1)
    layers = tuple((record.module, record.call) for record in records)
    return StageMaps(kind, layers, maps, tuple(records[0].value.shape[1:]), records[0].feature_size)


def _kind(record: Record) -> str:
    if record.self_attention and record.value.ndim in (4, 5):
        return "cross-covariance" if record.over_channels else "self-attention"
    if record.kind:
        return record.kind
    match record.value.shape[1:]:
        case (_,) | (_, 1, 1) | (1, _):
            return "channel"
        case (1, _, _):
            return "spatial"
        case (_, _, _) if record.module.rpartition(".")[2] == "gate":  # one spatial map per group of channels
            return "spatial"
    raise AnalysisInputError(
        "points",
        f"{record.module} gives {tuple(record.value.shape)}, which is no attention map; expected (batch, channel), "
        "(batch, channel, 1, 1), (batch, 1, channel), (batch, 1, height, width) or self-attention's (batch, head, "
        "row, column)",
    )
