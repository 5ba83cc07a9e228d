"""What can take a map's place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dia_analysis.ablation.fitting import Average
from dia_analysis.errors import AnalysisInputError

DRAWS = 5
Map = Float[Tensor, "image element"]


@dataclass(frozen=True)
class Replacement:
    """`make` gives the new maps from the layer's average, the images' own maps, and those of the donors.

    `draws` is how often donors are drawn, 1 where there are none. `words` say what a map is replaced by.
    """

    words: str
    make: Callable[[Average, Map, Map], Map]
    draws: int = 1
    for_self_attention: bool = True


def _mean(average: Average, own: Map, _: Map) -> Map:
    return average.mean.to(own.dtype).expand_as(own)


def _constant(average: Average, own: Map, _: Map) -> Map:
    return average.constant.to(own.dtype).expand_as(own)


def _one(_: Average, own: Map, __: Map) -> Map:
    return torch.ones_like(own)


def _donor(_: Average, __: Map, donor: Map) -> Map:
    return donor


def _half(_: Average, own: Map, donor: Map) -> Map:
    return own + (donor - own) / sqrt(2)


REPLACEMENTS = {
    "mean": Replacement("its mean over images", _mean),
    "resample": Replacement("another image's", _donor, DRAWS),
    "resample-half": Replacement("one part way to another image's", _half, DRAWS),
    "constant": Replacement("one constant", _constant),
    "one": Replacement("1", _one, for_self_attention=False),
}


def check_replacements(names: Sequence[str]) -> None:
    """Raise AnalysisInputError for an unknown name, or none."""
    unknown = [name for name in names if name not in REPLACEMENTS]
    if unknown or not names:
        given = repr(unknown[0]) if unknown else "nothing"
        raise AnalysisInputError("replace_by", f"{given} given; give some of {', '.join(REPLACEMENTS)}")


def derangement(count: int, generator: torch.Generator) -> Int64[Tensor, "image"]:
    """For each of at least two images another one, all such orders being equally likely."""
    own = torch.arange(count)
    while True:
        drawn = torch.randperm(count, generator=generator)
        if not (drawn == own).any():
            return drawn
