"""Tests between runs: against scipy, against numbers worked out by hand, and where nothing can be said."""

from math import isnan, nan, sqrt

import numpy as np
import pytest
from scipy import stats

from dia_analysis.errors import AnalysisInputError
from dia_analysis.statistics.significance import difference, fewest, fisher, holm, smallest_difference, spread, t_power

pytestmark = pytest.mark.numeric


def test_spread_by_hand():
    found = spread([1.0, 2.0, 6.0])
    assert (found.runs, found.mean) == (3, 3.0)
    assert found.std == pytest.approx(sqrt((4 + 1 + 9) / 2))


def test_one_run_has_no_spread_and_none_has_no_mean():
    assert isnan(spread([5.0]).std)
    assert isnan(spread([]).mean)


def test_difference_by_hand():
    # Means 2 and 5, variances 1 and 4: Student's t = -3 / sqrt(2.5 * 2/3), 4 degrees of freedom; Welch's has 50/17.
    found = difference([1.0, 2.0, 3.0], [3.0, 5.0, 7.0])
    t = -3 / sqrt(5 / 3)
    assert found.value == -3.0
    assert found.t_p == pytest.approx(2 * stats.t.sf(-t, 4))
    assert found.welch_p == pytest.approx(2 * stats.t.sf(-t, 50 / 17))
    assert found.hedges_g == pytest.approx(-3 / sqrt(2.5) * (1 - 3 / 15))
    margin = stats.t.ppf(0.975, 50 / 17) * sqrt(5 / 3)
    assert (found.low, found.high) == pytest.approx((-3 - margin, -3 + margin))


def test_difference_agrees_with_scipy_on_sides_of_different_sizes():
    random = np.random.default_rng(3)
    first, second = random.normal(0, 1, 4).tolist(), random.normal(1, 3, 9).tolist()
    found = difference(first, second)
    assert found.t_p == pytest.approx(stats.ttest_ind(first, second).pvalue)
    assert found.welch_p == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)


@pytest.mark.parametrize(("first", "second"), [([1.0], [2.0, 3.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_without_spread_there_is_a_difference_but_no_test(first, second):
    found = difference(first, second)
    assert found.value < 0
    numbers = (found.low, found.high, found.t_p, found.welch_p, found.hedges_g, found.smallest_seen(0.05))
    assert all(isnan(number) for number in numbers)
    assert found.runs == (len(first), len(second))


@pytest.mark.parametrize("second", [[], [1.0, nan]])
def test_scores_that_are_none_or_not_finite_are_refused(second):
    with pytest.raises(AnalysisInputError, match="at least one finite score on each side"):
        difference([1.0, 2.0], second)


def test_noise_is_called_significant_as_often_as_promised():
    random = np.random.default_rng(0)
    p = np.array([difference(*random.normal(size=(2, 5)).tolist()).welch_p for _ in range(1000)])
    assert 0.03 < (p < 0.05).mean() < 0.07


def test_holm_by_hand():
    assert holm([0.01, 0.04, nan, 0.03]) == pytest.approx([0.03, 0.06, nan, 0.06], nan_ok=True)
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_is_scipys_at_every_level():
    first, second = [1.0, 2.0, 4.0, 4.5], [3.0, 5.0, 9.0]
    for alpha in (0.05, 0.05 / 9):
        expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(1 - alpha)
        assert difference(first, second).interval(alpha) == pytest.approx((expected.low, expected.high))


def test_fishers_test_by_hand():
    """All of 3 against none of 3: one table of the 20 with these sums, or the one on the other side."""
    assert fisher(3, 3, 0, 3) == pytest.approx(2 / 20)
    assert fisher(4, 4, 0, 4) == pytest.approx(2 / 70)
    assert fisher(2, 5, 2, 5) == pytest.approx(1)
    assert fisher(0, 3, 0, 3) == pytest.approx(1)
    assert isnan(fisher(1, 1, 0, 20))


def test_the_fewest_that_would_decide():
    assert fewest(3, 3, 0.05) is None
    assert fewest(4, 4, 0.05) == 4
    assert fewest(15, 15, 0.05) == 5
    assert fisher(5, 15, 0, 15) < 0.05 < fisher(4, 15, 0, 15)


@pytest.mark.parametrize(("runs", "effect"), [((3, 3), 3.1), ((5, 5), 2.0), ((10, 10), 1.3), ((15, 15), 1.1)])
def test_the_smallest_difference_of_published_power_tables(runs, effect):
    assert round(smallest_difference(1.0, runs, 0.05), 1) == effect
    assert smallest_difference(2.5, runs, 0.05) == pytest.approx(2.5 * smallest_difference(1.0, runs, 0.05))


@pytest.mark.parametrize("runs", [(2, 2), (3, 5), (15, 15)])
@pytest.mark.parametrize("effect", [0.0, 0.7, 2.5])
def test_power_is_that_of_the_noncentral_t(runs, effect):
    freedom, shift = sum(runs) - 2, effect / sqrt(1 / runs[0] + 1 / runs[1])
    limit = stats.t.isf(0.025, freedom)
    expected = stats.nct.sf(limit, freedom, shift) + stats.nct.cdf(-limit, freedom, shift)
    assert t_power(effect, runs, 0.05) == pytest.approx(expected, abs=1e-5)


def test_power_is_the_level_without_a_difference_and_80_percent_at_the_smallest_one():
    assert t_power(0.0, (5, 5), 0.01) == pytest.approx(0.01, abs=1e-6)
    assert t_power(smallest_difference(1.0, (5, 5), 0.05 / 30), (5, 5), 0.05 / 30) == pytest.approx(0.8)
    assert isnan(smallest_difference(1.0, (1, 9), 0.05))
    assert isnan(smallest_difference(nan, (9, 9), 0.05))


def test_the_smallest_difference_is_seen_in_four_of_five_simulated_tables():
    random = np.random.default_rng(0)
    effect = smallest_difference(1.0, (5, 5), 0.05)
    samples = random.normal(size=(4000, 2, 5))
    p = stats.ttest_ind(samples[:, 0] + effect, samples[:, 1], axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.025)  # four standard errors
