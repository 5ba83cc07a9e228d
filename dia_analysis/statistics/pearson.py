"""Pearson's r between layers' maps, image by image, also streamed over batches."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchmetrics import Metric

STRONG = 0.8  # section I: "greater than 0.8 indicates a strong correlation"
BINS = 2**16
ROUNDINGS = 8  # a map is constant if its spread is below so many roundings of its own length
VALUES_AT_ONCE = 2**24  # self-attention maps of a whole batch, in float64 and three times, would not fit


@dataclass(frozen=True)
class Deviations:
    """Maps less their mean, scaled to length 1; NaN for a map that is constant or holds a value that is not finite."""

    units: Float[Tensor, "image layer element"]
    constant: Bool[Tensor, "image layer"]
    finite: Bool[Tensor, "image layer"]

    @classmethod
    def of(cls, maps: Float[Tensor, "image layer element"], made_in: torch.dtype | None = None) -> "Deviations":
        """Of maps that a network made in the type `made_in`, by default the maps' own, whichever is coarser.

        A map is constant if the length of its deviation from its mean is at most 8 eps of that type times the length
        of the map itself: what is left is rounding. Computed in float64, the mean first and then the deviations.
        """
        values = maps.to("cpu", torch.float64)
        deviations = values - values.mean(-1, keepdim=True)
        lengths = deviations.norm(dim=-1)
        finite = lengths.isfinite()
        varies = lengths > rounding(maps.dtype, made_in) * values.norm(dim=-1)
        units = deviations / torch.where(varies & finite, lengths, torch.nan)[..., None]
        return cls(units, finite & ~varies, finite)

    @property
    def vary(self) -> Bool[Tensor, "image layer"]:
        """Which maps have a direction, so that r is defined."""
        return self.finite & ~self.constant

    def pearson(self) -> Float[Tensor, "image layer layer"]:
        """Pearson's r between every two layers of each image, NaN where one of the two has no direction."""
        return (self.units @ self.units.mT).clamp(-1, 1)


def rounding(dtype: torch.dtype, made_in: torch.dtype | None = None) -> float:
    """The least length of a deviation that is more than rounding, in lengths of the map: 8 eps of the coarser type."""
    return ROUNDINGS * max(torch.finfo(each).eps for each in (dtype, made_in or dtype))


def pearson(
    maps: Float[Tensor, "image layer element"], made_in: torch.dtype | None = None
) -> tuple[Float[Tensor, "image layer layer"], Bool[Tensor, "image layer layer"]]:
    """Pearson's r between every two layers of each image, over the elements, in float64.

    Args:
        maps: Attention maps (image, layer, element).
        made_in: The type in which the network made them, by default theirs.

    Returns:
        r (image, layer, layer), and where it is defined: not (r is NaN) for a map that is constant but for the rounding
        of that type (see `Deviations.of`), or that has a value which is not finite.
    """
    found = Deviations.of(maps, made_in)
    return found.pearson(), found.vary[:, :, None] & found.vary[:, None, :]


class PearsonBetweenLayers(Metric):
    """Streams the statistics of `pearson` over images; its size does not depend on how many there are.

    All counts and sums add up over processes. The median is read from a histogram of 65,536 bins over [-1, 1],
    so it is exact to 2e-5; all else is exact.
    """

    full_state_update = False
    total: Float[Tensor, "layer layer"]
    defined: Int64[Tensor, "layer layer"]
    constant: Int64[Tensor, "layer"]
    not_finite: Int64[Tensor, "layer"]
    squares: Float[Tensor, ""]
    strong: Int64[Tensor, ""]
    histogram: Int64[Tensor, "bin"]
    images: Int64[Tensor, ""]

    def __init__(self, layers: int):
        super().__init__()
        self.pairs = torch.triu_indices(layers, layers, offset=1)
        square = (layers, layers)
        self.add_state("total", torch.zeros(square, dtype=torch.float64), "sum")
        self.add_state("defined", torch.zeros(square, dtype=torch.int64), "sum")
        self.add_state("constant", torch.zeros(layers, dtype=torch.int64), "sum")
        self.add_state("not_finite", torch.zeros(layers, dtype=torch.int64), "sum")
        self.add_state("squares", torch.tensor(0.0, dtype=torch.float64), "sum")
        self.add_state("strong", torch.tensor(0), "sum")
        self.add_state("histogram", torch.zeros(BINS, dtype=torch.int64), "sum")
        self.add_state("images", torch.tensor(0), "sum")

    def update(
        self, maps: Float[Tensor, "image layer element"] | Deviations, made_in: torch.dtype | None = None
    ) -> None:
        """Add some images, or their deviations; `made_in` is the type in which the network made the maps, by default
        their own.
        """
        if isinstance(maps, Deviations):
            self._add(maps)
            return
        images = max(1, VALUES_AT_ONCE // (maps.shape[1] * maps.shape[2]))
        for part in torch.split(maps, images):
            self._add(Deviations.of(part, made_in))

    def _add(self, found: Deviations) -> None:
        r, defined = found.pearson(), found.vary[:, :, None] & found.vary[:, None, :]
        self.total += r.nan_to_num(0.0).sum(0)
        self.defined += defined.sum(0)
        self.constant += found.constant.sum(0)
        self.not_finite += (~found.finite).sum(0)
        self.images += len(r)
        rows, columns = self.pairs
        values = r[:, rows, columns][defined[:, rows, columns]]
        self.squares += values.square().sum()
        self.strong += (values > STRONG).sum()
        bins = ((values + 1) * (BINS / 2)).long().clamp(max=BINS - 1)
        self.histogram += torch.bincount(bins, minlength=BINS)

    def compute(self) -> dict[str, Any]:
        """The statistics as plain numbers and arrays, named as in StageCorrelation."""
        rows, columns = self.pairs
        count = int(self.defined[rows, columns].sum())
        pairs = int(self.images) * len(rows)
        numbers: dict[str, Any] = dict.fromkeys(("mean_r", "std_r", "median_r", "share_above_0_8"))
        if count:
            mean = float(self.total[rows, columns].sum()) / count
            numbers = {
                "mean_r": mean,
                "std_r": max(float(self.squares) / count - mean**2, 0.0) ** 0.5,
                "median_r": _median(self.histogram.numpy()),
                "share_above_0_8": int(self.strong) / count,
            }
        matrix = (self.total / self.defined).numpy()  # 0 / 0 is NaN: this pair was never defined
        return {
            **numbers,
            "pairs": pairs,
            "undefined": pairs - count,
            "constant": self.constant.numpy(),
            "not_finite": self.not_finite.numpy(),
            "matrix": matrix,
            "histogram": self.histogram.numpy(),
        }


def _median(histogram: np.ndarray) -> float:
    """The median of values in equal bins over [-1, 1], each value taken to be at its bin's center."""
    count = int(histogram.sum())
    middle = np.searchsorted(histogram.cumsum(), [(count - 1) // 2, count // 2], side="right")
    return float((middle.mean() + 0.5) * 2 / len(histogram) - 1)
