"""A captured map, and what is known of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.found import FoundAttention


@dataclass(frozen=True)
class Record:
    """The map of one call: `value` has the images first.

    `kind` is that of `FoundAttention`, "cross-covariance" for self-attention of a head's channels, or "features" for
    pooled outputs of a module. `feature_size` are the sizes along the positions of the features that it multiplies,
    (height, width) in images, None if not known. `direction` says along which dimensions of these a gate varies,
    `sigmoid` that a sigmoid put the map out, as far as is known.
    """

    module: str
    call: int
    value: Tensor
    kind: str
    feature_size: tuple[int, ...] | None = None
    direction: tuple[bool, ...] = ()
    sigmoid: bool = False


def of_found(one: FoundAttention, value: Tensor) -> Record:
    """The record of a map that was found by what it does."""
    kind = "cross-covariance" if one.over_channels else one.kind
    return Record(one.name, one.call, value, kind, one.feature_size or None, one.direction, one.sigmoid)


def by_hand(module: str, call: int, value: Tensor, size: tuple[int, ...] = ()) -> Record:
    """The record of a module's output that the user named, its kind told by its shape; `size` is of the features.

    Raises AnalysisInputError for what can be no attention map.
    """
    match value.shape[1:]:
        case (_,) | (_, 1, 1) | (1, _):
            return Record(module, call, value, "channel", size or None)
        case (1, _, _):
            return Record(module, call, value, "spatial", size or None)
        case (_, _, _) if _adds_up(value):
            return Record(module, call, value, "self-attention", size or None)
    raise AnalysisInputError(
        "points",
        f"{module} gives {tuple(value.shape)}, which is no attention map; expected (batch, channel), "
        "(batch, channel, 1, 1), (batch, 1, channel), (batch, 1, height, width), or (batch, head, query, key) with "
        "sums of 1 over the keys; 'features:' before the name pools other outputs",
    )


def _adds_up(value: Tensor) -> bool:
    """Whether it is weights over its last dimension."""
    return bool((value >= 0).all()) and torch.allclose(value.sum(-1).float(), torch.ones(()), atol=1e-2)
