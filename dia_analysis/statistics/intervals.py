"""95 % intervals of shares and areas over patients; they keep a width where every image is right, or none is.

Images of one patient are not independent. How much an estimate p varies over patients says how many independent images
theirs are worth: the effective number p (1 - p) / variance. Wilson's interval (1927) is taken on that number, with
Student's t for the normal quantile where patients have several images (Korn and Graubard 1998; Dean and Pagano 2015).
Where all images are alike, patients cannot be seen to vary: then each patient's images are taken as wholly alike.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import inf, nan, sqrt
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int64

LEAST = 10  # patients; of fewer only the counts are given
LEVEL = 0.975  # two-sided, 95 %
NORMAL = NormalDist().inv_cdf(LEVEL)
"""The normal distribution's quantile."""
DECIMALS = 3
ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A number over `images`, of which `right` are right if it is a share, and its 95 % interval.

    NaN where it is not defined, such as a sensitivity without positives; an interval also where there are too few
    patients for one.
    """

    value: float
    low: float = nan
    high: float = nan
    images: int = 0
    right: int | None = None

    @property
    def has_interval(self) -> bool:
        """Whether there are enough patients for an interval."""
        return not np.isnan(self.low)

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain values for JSON; what is not defined is null."""
        return {name: None if number is None or np.isnan(number) else number for name, number in asdict(self).items()}

    def text(self) -> str:
        """The number, its interval and what it is over, for a table; without an interval the counts only."""
        if np.isnan(self.value):
            return "not defined"
        over = f"n={self.images}" if self.right is None else f"{self.right}/{self.images}"
        return f"{self.value:.{DECIMALS}f} {self.interval()} {over}" if self.has_interval else over

    def interval(self) -> str:
        """The interval alone, with as many decimals as show its width."""
        digits = DECIMALS
        while digits < 9 and self.low < self.high and f"{self.low:.{digits}f}" == f"{self.high:.{digits}f}":
            digits += 1
        return f"[{self.low:.{digits}f}, {self.high:.{digits}f}]"


def percent(found: Estimate) -> str:
    """A share in percent, its interval and its counts; without an interval the counts only."""
    if not found.has_interval:
        return found.text()
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}] {found.right}/{found.images}"


@dataclass(frozen=True)
class Patients:
    """Whose the images are, by number."""

    owner: Int64[np.ndarray, "image"]

    @classmethod
    def named(cls, names: Sequence[str]) -> "Patients":
        """Those with these names, one for each image."""
        return cls(np.unique(np.asarray(names), return_inverse=True)[1])

    def of(self, chosen: Bool[np.ndarray, "image"]) -> "Patients":
        """Those of some of the images."""
        return Patients(np.unique(self.owner[chosen], return_inverse=True)[1])

    @cached_property
    def sizes(self) -> Int64[np.ndarray, "patient"]:
        """How many images each has."""
        return np.bincount(self.owner)

    @property
    def count(self) -> float:
        """How many there are: what their images are worth if those of one patient are wholly alike."""
        return float(len(self.sizes))

    @property
    def quantile(self) -> float:
        """How many standard errors an interval reaches; the normal one where every image is of another patient."""
        return NORMAL if len(self.sizes) == len(self.owner) else student(len(self.sizes) - 1)

    def variance(self, residuals: Float[np.ndarray, "image"]) -> float:
        """The variance of a sum over images, from each image's part of it beyond the expected one."""
        sums = np.bincount(self.owner, residuals)
        return float(sums @ sums) * len(sums) / (len(sums) - 1)


def student(freedom: int) -> float:
    """The quantile of Student's t for a two-sided 95 % interval."""
    from scipy.stats import t

    return float(t.ppf(LEVEL, freedom))


def wilson(value: float, number: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval of a share of so many (not necessarily whole) independent images."""
    weight = quantile**2 / number
    center = (value + weight / 2) / (1 + weight)
    reach = quantile * sqrt(value * (1 - value) / number + weight / number / 4) / (1 + weight)
    low, high = max(center - reach, 0.0), min(center + reach, 1.0)
    return (0.0 if value == 0 else low), (1.0 if value == 1 else high)  # where rounding may miss them


def effective_number(value: float, variance: float, most: float, alike: float) -> float:
    """How many independent images an estimate is worth: at most `most`, and `alike` if it does not vary."""
    return alike if same(value, variance) else min(value * (1 - value) / variance, most)


def same(value: float, variance: float) -> bool:
    """Whether a variance is nothing but rounding."""
    return sqrt(variance) <= ROUNDING * abs(value)


def share(right: Bool[np.ndarray, "image"], patients: Patients) -> Estimate:
    """The share of the images that are right. Images of one patient never count for more than independent ones."""
    return _mean(right.astype(np.float64), patients, float(len(right)), int(right.sum()))


def bounded_mean(values: Float[np.ndarray, "image"], patients: Patients) -> Estimate:
    """The mean of values from 0 to 1."""
    return _mean(values, patients, inf, None)


def _mean(values: Float[np.ndarray, "image"], patients: Patients, most: float, right: int | None) -> Estimate:
    images = len(values)
    if not images:
        return Estimate(nan, images=0, right=right)
    value = float(values.mean())
    if len(patients.sizes) < LEAST:
        return Estimate(value, images=images, right=right)
    variance = patients.variance((values - value) / images) * (images - 1) / images
    number = effective_number(value, variance, most, patients.count)
    return Estimate(value, *wilson(value, number, patients.quantile), images, right)


def balanced(first: Estimate, second: Estimate, apart: bool) -> Estimate:
    """The mean of two shares, from their intervals (Newcombe 1998; Zou and Donner 2008).

    If they are not of other patients (`apart`), they are taken as going wholly together, which is the widest.
    """
    value, images = (first.value + second.value) / 2, first.images + second.images
    ends = []
    for name in ("low", "high"):
        gaps = [abs(getattr(part, name) - part.value) for part in (first, second)]
        ends.append((sqrt(gaps[0] ** 2 + gaps[1] ** 2) if apart else sum(gaps)) / 2)
    return Estimate(value, value - ends[0], value + ends[1], images)


def runs_and_patients(values: Float[np.ndarray, "run image"], patients: Patients) -> Estimate:
    """The mean over runs of one network of each run's mean over images; NaN where a run has no value.

    From three runs on, mean ± t(runs - 1) sqrt(variance of runs / runs + variance of patients / patients); of fewer,
    of these runs with other patients: mean ± t(patients - 1) sqrt(variance of patients / patients). No interval for
    fewer than ten patients, nor where nothing varies.
    """
    given = ~np.isnan(values)
    kept = values[given.any(1)]
    counts = (~np.isnan(kept)).sum(1)
    images = int(counts.max(initial=0))
    if not images:
        return Estimate(nan)
    means = np.nanmean(kept, axis=1)
    value, some = float(means.mean()), given.any(0)
    known = patients.of(some)
    if len(known.sizes) < LEAST:
        return Estimate(value, images=images)
    residuals = np.nan_to_num((kept[:, some] - means[:, None]) / counts[:, None]).mean(0)
    variance, freedom = known.variance(residuals), len(known.sizes) - 1
    if len(kept) > 2:
        variance, freedom = variance + float(means.var(ddof=1)) / len(kept), len(kept) - 1
    if same(value, variance):
        return Estimate(value, images=images)
    reach = student(freedom) * sqrt(variance)
    return Estimate(value, max(value - reach, 0.0), min(value + reach, 1.0), images)
