"""Do two kinds of networks differ, or is it chance? Tests between the scores of runs with several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from jaxtyping import Float
from scipy import stats

from dia_analysis.errors import AnalysisInputError

Scores = Float[np.ndarray, "_"]
ROUNDING = 1e-12  # scores that differ by less than this part of them are the same


@dataclass(frozen=True)
class Spread:
    """Scores of several runs: how many, their mean, and their standard deviation (n - 1); NaN where not defined."""

    runs: int
    mean: float
    std: float


def spread(scores: Sequence[float]) -> Spread:
    """Mean and standard deviation of scores; none of one run, and no mean of none."""
    values = np.asarray(scores, dtype=np.float64)
    mean = float(values.mean()) if len(values) else nan
    return Spread(len(values), mean, float(values.std(ddof=1)) if len(values) > 1 else nan)


@dataclass(frozen=True)
class Difference:
    """First minus second, with the 95 % interval of Welch's test (`low` to `high`).

    `t_p` is the two-sided p of Student's two-sample t-test, which the paper uses and which takes equal variances for
    granted, `welch_p` that of Welch's, which does not. `hedges_g` is the effect in standard deviations (Hedges 1981).
    All but `value` are NaN where a side has fewer than two runs, or no run differs from another of its side.
    """

    value: float
    low: float
    high: float
    t_p: float
    welch_p: float
    hedges_g: float


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two sets of scores. Raises AnalysisInputError if one is empty or not finite."""
    sides = [np.asarray(scores, dtype=np.float64) for scores in (first, second)]
    if not all(len(side) and np.isfinite(side).all() for side in sides):
        raise AnalysisInputError("scores", "a comparison needs at least one finite score on each side")
    value = float(sides[0].mean() - sides[1].mean())
    if min(map(len, sides)) < 2 or max(map(np.ptp, sides)) <= ROUNDING * max(np.abs(side).max() for side in sides):
        return Difference(value, nan, nan, nan, nan, nan)
    moments = [number for side in sides for number in (side.mean(), side.std(ddof=1), len(side))]
    student, welch = (stats.ttest_ind_from_stats(*moments, equal_var=equal).pvalue for equal in (True, False))
    margin = _welch_margin(*sides)
    return Difference(value, value - margin, value + margin, float(student), float(welch), _hedges(*sides))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction for several tests; what is NaN is no test and stays NaN."""
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected = np.full(len(p), nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return [float(value) for value in corrected]


def _welch_margin(first: Scores, second: Scores) -> float:
    """Half the 95 % interval's width, with the degrees of freedom of Welch and Satterthwaite."""
    errors = np.array([side.var(ddof=1) / len(side) for side in (first, second)])
    freedom = errors.sum() ** 2 / (errors**2 / [len(first) - 1, len(second) - 1]).sum()
    return float(stats.t.ppf(0.975, freedom) * sqrt(errors.sum()))


def _hedges(first: Scores, second: Scores) -> float:
    freedom = len(first) + len(second) - 2
    pooled = sqrt(((len(first) - 1) * first.var(ddof=1) + (len(second) - 1) * second.var(ddof=1)) / freedom)
    return float((first.mean() - second.mean()) / pooled * (1 - 3 / (4 * freedom - 1)))
