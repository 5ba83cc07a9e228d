"""What maps are on average over images, which takes their place in an ablation."""

from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from dia_analysis.ablation.running import Layer
from dia_analysis.errors import AnalysisInputError

UNUSED = 1e-12  # a mean weight below which a key is taken to be masked


@dataclass(frozen=True)
class Average:
    """A layer's maps over images: their `mean` (float64), the mean over its elements too (`level`), and `spread`, the
    root of the mean over images of the variance over elements.

    `constant` is the map that holds nothing but its level; of self-attention, for each query the same weight for all
    keys that it uses.
    """

    mean: Float[Tensor, "element"]
    level: float
    spread: float
    constant: Float[Tensor, "element"]


class MapAverage:
    """Averages the maps of one layer batch by batch, in float64; `left_out` images have a map that is not finite."""

    def __init__(self, layer: Layer):
        self.layer = layer
        self.total = torch.zeros(torch.Size(layer.shape).numel(), dtype=torch.float64)
        self.variance = 0.0
        self.images = 0
        self.left_out = 0

    def update(self, maps: Float[Tensor, "image element"]) -> None:
        """Add the maps of a batch."""
        fit = maps.isfinite().all(1)
        known = maps[fit].double()
        self.total += known.sum(0)
        self.variance += float((known - known.mean(1, keepdim=True)).square().mean(1).sum())
        self.images += len(known)
        self.left_out += len(maps) - len(known)

    def compute(self) -> Average:
        """The averages. Raises AnalysisInputError if no map was finite."""
        if not self.images:
            raise AnalysisInputError(
                "fit_batches", f"the map of {self.layer.name} is not finite (NaN or infinite) on any image"
            )
        mean = self.total / self.images
        level = mean.mean()
        constant = _uniform(mean.reshape(self.layer.shape)) if self.layer.is_self_attention else level.expand_as(mean)
        return Average(mean, float(level), sqrt(self.variance / self.images), constant.flatten())


def _uniform(weights: Float[Tensor, "... query key"]) -> Float[Tensor, "... query key"]:
    """As much weight for each query, spread evenly over the keys that it uses."""
    used = weights > UNUSED
    return used * weights.sum(-1, keepdim=True) / used.sum(-1, keepdim=True).clamp_min(1)
