"""How large are the values of a tensor? Moments, quantiles and a histogram of log10 |value|, streamed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchmetrics import Metric

from dia_analysis.results.base import Concise

LOWEST, HIGHEST = -324, 309  # decades that hold every float64
PER_DECADE = 100
BINS = (HIGHEST - LOWEST) * PER_DECADE
CHUNK = 2**17  # values at a time, so that what is computed on the way stays small and near


@dataclass(frozen=True, repr=False)
class Magnitudes(Concise):
    """The absolute values of many numbers.

    `count` numbers are finite, of which `zeros` are exactly zero; `nonfinite` more are NaN or infinite and enter
    nothing else. `mean` and `variance` (divided by the count) are over the finite ones, zeros included, and exact
    but for float64's rounding; None if there is none. `smallest` and `largest` are those of the non-zero ones.
    `histogram` counts the non-zero ones by log10, in `PER_DECADE` bins per decade from 1e`LOWEST` to 1e`HIGHEST`.
    """

    count: int
    mean: float | None
    variance: float | None
    zeros: int
    nonfinite: int
    smallest: float | None
    largest: float | None
    histogram: np.ndarray

    @property
    def std(self) -> float | None:
        """The standard deviation."""
        return None if self.variance is None else self.variance**0.5

    def quantile(self, q: float) -> float | None:
        """The smallest value that a share `q` of the finite ones does not exceed, to 1.2 %; None if there is none.

        It is read from the histogram: the geometric center of the bin, never outside `smallest` to `largest`.
        """
        if not self.count:
            return None
        rank = max(int(np.ceil(q * self.count)), 1)
        if rank <= self.zeros:
            return 0.0
        assert self.smallest is not None
        assert self.largest is not None
        index = int(np.searchsorted(self.histogram.cumsum(), rank - self.zeros))
        log = LOWEST + (index + 0.5) / PER_DECADE
        return float(np.clip(10.0 ** min(log, HIGHEST - 1), self.smallest, self.largest))

    def binned(self, per_decade: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts in wider bins and their edges as log10, from the first bin with a value to the last.

        `per_decade` divides PER_DECADE. Both arrays are empty if no value is non-zero.
        """
        counts = self.histogram.reshape(-1, PER_DECADE // per_decade).sum(1)
        filled = np.flatnonzero(counts)
        if not len(filled):
            return counts[:0], np.empty(0)
        first, last = filled[0], filled[-1] + 1
        return counts[first:last], LOWEST + np.arange(first, last + 1) / per_decade


class MagnitudeStatistics(Metric):
    """Streams `Magnitudes` of tensors of any shape; its size does not depend on how many values there are.

    All states join over processes, unless the metric's `sync_on_compute` is false.
    """

    full_state_update = False
    moments: Float[Tensor, "3"]
    zeros: Int64[Tensor, ""]
    nonfinite: Int64[Tensor, ""]
    smallest: Float[Tensor, ""]
    largest: Float[Tensor, ""]
    histogram: Int64[Tensor, "bin"]

    def __init__(self, **of_metric: Any) -> None:
        super().__init__(**of_metric)
        self.add_state("moments", torch.zeros(3, dtype=torch.float64), merge_moments)
        self.add_state("zeros", torch.tensor(0), "sum")
        self.add_state("nonfinite", torch.tensor(0), "sum")
        self.add_state("smallest", torch.tensor(torch.inf, dtype=torch.float64), "min")
        self.add_state("largest", torch.tensor(0.0, dtype=torch.float64), "max")
        self.add_state("histogram", torch.zeros(BINS, dtype=torch.int64), "sum")

    def update(self, values: Float[Tensor, "*shape"]) -> None:
        """Add the absolute values of a tensor."""
        values = values.detach().flatten()
        if values.device.type == "mps":  # which has no float64
            values = values.cpu()
        for start in range(0, len(values), CHUNK):
            self._add(values[start : start + CHUNK].double().abs())

    def _add(self, magnitudes: Float[Tensor, "value"]) -> None:
        finite = _chosen(magnitudes, magnitudes.isfinite())
        positive = _chosen(finite, finite > 0)
        self.nonfinite += len(magnitudes) - len(finite)
        self.zeros += len(finite) - len(positive)
        self.moments = merge_moments(torch.stack([self.moments, _moments(finite).cpu()]))
        if len(positive):
            self.smallest = torch.minimum(self.smallest, positive.min().cpu())
            self.largest = torch.maximum(self.largest, positive.max().cpu())
            bins = ((positive.log10() - LOWEST) * PER_DECADE).long().clamp(0, BINS - 1)
            self.histogram += torch.bincount(bins, minlength=BINS).cpu()

    def compute(self) -> dict[str, Any]:
        """The fields of `Magnitudes`, as plain numbers and an array."""
        count, mean, squares = self.moments.tolist()
        any_positive = bool(self.largest > 0)
        return {
            "count": int(count),
            "mean": mean if count else None,
            "variance": squares / count if count else None,
            "zeros": int(self.zeros),
            "nonfinite": int(self.nonfinite),
            "smallest": float(self.smallest) if any_positive else None,
            "largest": float(self.largest) if any_positive else None,
            "histogram": self.histogram.numpy().copy(),
        }


def merge_moments(parts: Float[Tensor, "part 3"]) -> Float[Tensor, "3"]:
    """Count, mean and sum of squared deviations of several parts taken together (Chan et al. 1979)."""
    counts, means, squares = parts.unbind(1)
    total = counts.sum()
    if total == 0:
        return torch.zeros_like(parts[0])
    mean = (counts * means).sum() / total
    return torch.stack([total, mean, (squares + counts * (means - mean).square()).sum()])


def _chosen(values: Float[Tensor, "value"], mask: Bool[Tensor, "value"]) -> Float[Tensor, "chosen"]:
    return values if mask.all() else values[mask]  # choosing costs more than all else together


def _moments(values: Float[Tensor, "value"]) -> Float[Tensor, "3"]:
    mean = values.mean() if len(values) else values.new_zeros(())
    return torch.stack([values.new_tensor(len(values)), mean, (values - mean).square().sum()])
