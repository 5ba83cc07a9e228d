"""Tests between runs: against scipy, against numbers worked out by hand, and where nothing can be said."""

from math import isnan, nan, sqrt

import numpy as np
import pytest
from scipy import stats

from dia_analysis.errors import AnalysisInputError
from dia_analysis.significance import difference, holm, spread


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
    assert all(isnan(number) for number in (found.low, found.high, found.t_p, found.welch_p, found.hedges_g))


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
