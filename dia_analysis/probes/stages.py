"""Group captured attention maps into stages and layers."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from string import digits
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dia_analysis.probes.records import Record


@dataclass(frozen=True)
class StageMaps:
    """The attention maps of one stage: `maps` (image, layer, element), `layers` the (module, call) behind each.

    `kind` says what an element is: a channel, a position of the feature map ("spatial"), a row or column of it
    ("directional"), a branch's channel ("branch"), one number of the features ("map"), how much of one token a head
    adds to another ("self-attention"), or of one of its channels to another ("cross-covariance"). `shape` is that of a
    layer's map before its elements were put in a row, and `feature_size` the (height, width) of the features it belongs
    to, None if there are none. `made_in` is the type in which the network made the maps, None if that is not known or
    is the maps' own. `sigmoid` says that a sigmoid put out the maps of all layers.
    """

    kind: str
    layers: tuple[tuple[str, int], ...]
    maps: Float[Tensor, "image layer element"]
    shape: tuple[int, ...] | None = None
    feature_size: tuple[int, ...] | None = None
    made_in: torch.dtype | None = None
    sigmoid: bool = False


def group_stages(records: Iterable[Record]) -> list[StageMaps]:
    """Put records into stages: runs of consecutive layers with one map size and one feature size, in forward order.

    Maps of different kinds, or along different directions, and points of different names (a gate, a cell state) are
    kept apart.
    """
    families: dict[Any, list[tuple[Any, Record]]] = {}
    for record in records:
        size = (tuple(record.value.shape[1:]), record.feature_size)
        families.setdefault(_family(record), []).append((size, record))
    return [
        _stage([record for _, record in run])
        for members in families.values()
        for _, run in groupby(members, key=lambda member: member[0])
    ]


def _family(record: Record) -> tuple[Any, ...]:
    name = record.module.rpartition(":" if ":" in record.module else ".")[2].rstrip(digits)
    return record.kind, record.direction if record.kind == "directional" else (), name


def _stage(records: list[Record]) -> StageMaps:
    maps = torch.stack([record.value.flatten(1) for record in records], dim=1)
    layers = tuple((record.module, record.call) for record in records)
    shape, sigmoid = tuple(records[0].value.shape[1:]), all(record.sigmoid for record in records)
    return StageMaps(records[0].kind, layers, maps, shape, records[0].feature_size, sigmoid=sigmoid)
