"""Other ways to say that two layers' maps are alike: as directions of unit length, image by image, as r is one."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from dia_analysis.correlation.similarity_names import OTHERS
from dia_analysis.probes.stages import StageMaps
from dia_analysis.statistics.pearson import Deviations

Maps = Float[Tensor, "image layer _"]
HEADS = ("self-attention", "cross-covariance")


def directions(name: str, maps: Maps, stage: StageMaps) -> Float[Tensor, "image layer _"]:
    """Each map as a vector of length 1, whose products are the similarity `name`; NaN where it is not defined.

    `stage` says of what kind and shape a map is.
    """
    return SIMILARITIES[name](maps, stage)


def heads_of(stage: StageMaps) -> int:
    """How many heads a layer has; 1 of what is no self-attention."""
    several = stage.kind in HEADS and stage.shape is not None and len(stage.shape) >= 3
    return stage.shape[-3] if several and stage.shape else 1


def over_heads(stage: StageMaps) -> StageMaps:
    """Self-attention's maps as their mean over heads, which have no order; others as they are. Windows stay apart."""
    if stage.kind not in HEADS or stage.shape is None or len(stage.shape) < 3:
        return stage
    mean = stage.maps.double().reshape(*stage.maps.shape[:2], *stage.shape).mean(-3).flatten(2).to(stage.maps.dtype)
    return replace(stage, maps=mean, shape=(*stage.shape[:-3], *stage.shape[-2:]))


def by_head(maps: Maps, stage: StageMaps) -> Float[Tensor, "image layer_head _"]:
    """Self-attention's maps with a row for each head of each layer; its windows follow one another."""
    assert stage.shape is not None
    return maps.reshape(*maps.shape[:2], *stage.shape).movedim(-3, 2).flatten(3).flatten(1, 2)


def unit_columns(maps: Maps, shape: tuple[int, ...]) -> Float[Tensor, "image layer _"]:
    """Self-attention's maps with columns of one length, so that cosine is the mean over columns.

    As in DeepViT (Zhou et al. 2021, equation 2). The last two of `shape` are a map's queries and keys.
    """
    windows = maps.shape[2] // shape[-2] // shape[-1]
    columns = maps.double().reshape(*maps.shape[:2], windows, *shape[-2:])
    return _unit(torch.nn.functional.normalize(columns, dim=-2).flatten(2))


def _spearman(maps: Maps, stage: StageMaps) -> Tensor:
    """Of ranks, those of equal values their mean; constant maps have none."""
    from scipy.stats import rankdata  # takes long to import

    defined = Deviations.of(maps, stage.made_in).vary
    ranks = torch.from_numpy(rankdata(maps.double().nan_to_num(0.0).numpy(), axis=2))
    return torch.where(defined[:, :, None], Deviations.of(ranks).units, torch.nan)


def _cosine(maps: Maps, stage: StageMaps) -> Tensor:
    """Without centering; of self-attention by column."""
    if stage.kind in HEADS and stage.shape is not None and len(stage.shape) >= 2:
        return unit_columns(maps, stage.shape)
    return _unit(maps.double())


def _unit(values: Maps) -> Tensor:
    length = values.norm(dim=2, keepdim=True)
    return values / torch.where((length > 0) & length.isfinite(), length, torch.nan)


def _logit(maps: Maps, stage: StageMaps) -> Tensor:
    """Of log(x / (1 - x)): what goes into a sigmoid; NaN for a map with a value that is not between 0 and 1."""
    values = maps.double()
    return Deviations.of(values.logit(), stage.made_in).units


def _sorted(maps: Maps, stage: StageMaps) -> Tensor:
    """Of each map's values by size: how alike their distributions are, whatever the order of channels."""
    return Deviations.of(maps.sort(2).values, stage.made_in).units


SIMILARITIES: dict[str, Callable[[Maps, StageMaps], Tensor]] = dict(
    zip(OTHERS, (_spearman, _cosine, _logit, _sorted), strict=True)
)
