"""Do two kinds of networks differ, or is it chance? Tests between the scores of runs with several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt

import numpy as np
from jaxtyping import Float

from dia_analysis.errors import AnalysisInputError

Scores = Float[np.ndarray, "_"]
ROUNDING = 1e-12  # scores that differ by less than this part of them are the same
ALPHA = 0.05  # two-sided, for a whole table
POWER = 0.8
FEWEST = 2  # runs a side, below which nothing is tested


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
    `error` and `freedom` are Welch's standard error and degrees of freedom, `pooled_std` the standard deviation of
    both sides together. All but `value` and `runs` are NaN where a side has fewer than two runs, or no run differs
    from another of its side.
    """

    value: float
    low: float
    high: float
    t_p: float
    welch_p: float
    hedges_g: float
    error: float
    freedom: float
    pooled_std: float
    runs: tuple[int, int]

    def interval(self, alpha: float) -> tuple[float, float]:
        """Welch's interval that misses the true difference with probability `alpha`."""
        margin = _margin(self.error, self.freedom, alpha)
        return self.value - margin, self.value + margin

    def smallest_seen(self, alpha: float) -> float:
        """The smallest true difference that this many runs show with 80 % power, testing at `alpha`; NaN if none."""
        return smallest_difference(self.pooled_std, self.runs, alpha)


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two sets of scores. Raises AnalysisInputError if one is empty or not finite."""
    from scipy import stats

    sides = [np.asarray(scores, dtype=np.float64) for scores in (first, second)]
    if not all(len(side) and np.isfinite(side).all() for side in sides):
        raise AnalysisInputError("scores", "a comparison needs at least one finite score on each side")
    value, runs = float(sides[0].mean() - sides[1].mean()), (len(sides[0]), len(sides[1]))
    if min(runs) < FEWEST or max(map(np.ptp, sides)) <= ROUNDING * max(np.abs(side).max() for side in sides):
        return Difference(value, *(nan,) * 8, runs=runs)
    moments = [number for side in sides for number in (side.mean(), side.std(ddof=1), len(side))]
    student, welch = (stats.ttest_ind_from_stats(*moments, equal_var=equal).pvalue for equal in (True, False))
    error, freedom = _welch(*sides)
    margin, pooled = _margin(error, freedom, ALPHA), _pooled(*sides)
    hedges = value / pooled * (1 - 3 / (4 * (sum(runs) - 2) - 1))
    return Difference(
        value, value - margin, value + margin, float(student), float(welch), hedges, error, freedom, pooled, runs
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction for several tests; what is NaN is no test and stays NaN."""
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected = np.full(len(p), nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return [float(value) for value in corrected]


def fisher(first: int, of_first: int, second: int, of_second: int) -> float:
    """Fisher's exact two-sided p of `first` runs of `of_first` against `second` of `of_second`.

    NaN where a side has fewer than two runs.
    """
    from scipy import stats

    if min(of_first, of_second) < FEWEST:
        return nan
    return float(stats.fisher_exact([[first, of_first - first], [second, of_second - second]]).pvalue)


def fewest(of_first: int, of_second: int, alpha: float) -> int | None:
    """The fewest of the first runs that differ from none of the second by `fisher`'s p below `alpha`; None if all
    of them do not.
    """
    differ = (count for count in range(1, of_first + 1) if fisher(count, of_first, 0, of_second) < alpha)
    return next(differ, None)


def smallest_difference(std: float, runs: tuple[int, int], alpha: float, power: float = POWER) -> float:
    """The smallest true difference of two means that a two-sided t-test at `alpha` finds with this power.

    `std` is the standard deviation of both sides' runs. NaN if a side has fewer than two runs or `std` is NaN.
    """
    from scipy import optimize

    if isnan(std) or min(runs) < FEWEST:
        return nan
    highest = 1.0
    while t_power(highest, runs, alpha) < power:
        highest *= 2
    return std * float(optimize.brentq(lambda effect: t_power(effect, runs, alpha) - power, 0.0, highest))


def t_power(effect: float, runs: tuple[int, int], alpha: float) -> float:
    """The probability that the two-sided t-test at `alpha` finds a difference of `effect` standard deviations.

    The noncentral t distribution as a mean over the runs' standard deviation, so that its tails are exact too.
    """
    from scipy import special, stats

    freedom = sum(runs) - 2
    shift = effect / sqrt(1 / runs[0] + 1 / runs[1])
    limit = stats.t.isf(alpha / 2, freedom)
    std = np.linspace(0, 1 + 12 / sqrt(freedom), 4001)[1:]  # seen / true; its density is 0 at both ends
    log_density = (freedom - 1) * np.log(std) - freedom * std**2 / 2
    log_density += np.log(2) + freedom / 2 * np.log(freedom / 2) - special.gammaln(freedom / 2)
    found = special.ndtr(shift - limit * std) + special.ndtr(-shift - limit * std)
    return float((found * np.exp(log_density)).sum() * (std[1] - std[0]))


def _welch(first: Scores, second: Scores) -> tuple[float, float]:
    """The standard error of the difference, and the degrees of freedom of Welch and Satterthwaite."""
    errors = np.array([side.var(ddof=1) / len(side) for side in (first, second)])
    freedom = errors.sum() ** 2 / (errors**2 / [len(first) - 1, len(second) - 1]).sum()
    return float(sqrt(errors.sum())), float(freedom)


def _margin(error: float, freedom: float, alpha: float) -> float:
    """Half the width of Welch's interval."""
    from scipy import stats

    return float(stats.t.isf(alpha / 2, freedom) * error)


def _pooled(first: Scores, second: Scores) -> float:
    squares = sum((len(side) - 1) * side.var(ddof=1) for side in (first, second))
    return float(sqrt(squares / (len(first) + len(second) - 2)))
