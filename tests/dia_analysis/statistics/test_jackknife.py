"""The delete-one-group jackknife: by hand, its coverage, and where there is none."""

import numpy as np
import pytest
from scipy.stats import t

from dia_analysis.statistics.jackknife import jackknife_interval

pytestmark = pytest.mark.numeric


def of_mean(values, owner, groups):
    sizes = np.bincount(owner, minlength=groups)
    sums = np.bincount(owner, values, groups)
    with np.errstate(invalid="ignore"):
        without = (values.sum() - sums) / (len(values) - sizes)
    return jackknife_interval(values.mean(), without, sizes)


def test_the_mean_of_groups_of_one_has_students_interval():
    values = np.random.default_rng(0).normal(size=12)
    reach = t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    found = of_mean(values, np.arange(12), 12)
    assert found == pytest.approx((values.mean() - reach, values.mean() + reach))


def test_groups_of_unlike_size_cover_as_promised():
    random, hits, rounds = np.random.default_rng(1), 0, 400
    for _ in range(rounds):
        low, high = of_mean(random.normal(size=300), random.integers(50, size=300), 50)
        hits += low < 0 < high
    assert abs(hits / rounds - 0.95) < 4 * np.sqrt(0.95 * 0.05 / rounds)


def test_images_of_a_group_that_are_alike_count_as_one():
    values = np.repeat(np.random.default_rng(2).normal(size=20), 10)
    together = of_mean(values, np.repeat(np.arange(20), 10), 20)
    alone = of_mean(values, np.random.default_rng(3).integers(50, size=200), 50)
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_empty_groups_do_not_count_and_few_have_no_interval():
    values = np.random.default_rng(4).normal(size=30)
    owner = np.arange(30) % 15
    assert of_mean(values, owner * 3, 50) == pytest.approx(of_mean(values, owner, 15))
    assert of_mean(values, np.arange(30) % 9, 9) is None
    assert jackknife_interval(0.5, np.array([0.5] * 11 + [np.nan]), np.ones(12, int)) is None
