"""Other ways to say that two layers' maps are alike: as directions of unit length, image by image, as r is one."""

from collections.abc import Callable

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

    Of self-attention the mean over heads is taken, as heads have no order.
    """
    return SIMILARITIES[name](over_heads(maps, stage), stage)


def over_heads(maps: Maps, stage: StageMaps) -> Maps:
    """Self-attention's maps as their mean over heads, others as they are."""
    if stage.kind not in HEADS or stage.shape is None or len(stage.shape) < 3:
        return maps
    images, layers, _ = maps.shape
    return maps.double().view(images, layers, *stage.shape).mean(-3).flatten(2)  # windows stay apart


def _spearman(maps: Maps, stage: StageMaps) -> Tensor:
    """Of ranks, those of equal values their mean; constant maps have none."""
    from scipy.stats import rankdata  # takes long to import

    defined = Deviations.of(maps, stage.made_in).vary
    ranks = torch.from_numpy(rankdata(maps.double().nan_to_num(0.0).numpy(), axis=2))
    return torch.where(defined[:, :, None], Deviations.of(ranks).units, torch.nan)


def _cosine(maps: Maps, stage: StageMaps) -> Tensor:
    """Without centering. Of self-attention the mean over columns, as in DeepViT (Zhou et al. 2021, equation 2)."""
    values = maps.double()
    if stage.kind in HEADS and stage.shape is not None and len(stage.shape) >= 3:
        images, layers, _ = values.shape
        columns = torch.nn.functional.normalize(values.view(images, layers, *stage.shape[-2:]), dim=2)
        values = columns.flatten(2)
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
