"""Intervals: against closed forms, at the ends where others collapse, and how often they cover the truth."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm, t

from dia_analysis.statistics.binary_metrics import _auprc, area_variance, auroc, average_precision, placements
from dia_analysis.statistics.intervals import (
    LEAST,
    Estimate,
    Patients,
    balanced,
    bounded_mean,
    percent,
    runs_and_patients,
    share,
    wilson,
)

pytestmark = pytest.mark.numeric

Z = norm.ppf(0.975)


def whose(count, each=1):
    return Patients(np.arange(count * each) // each)


def right(count, of):
    return np.arange(of) < count


def covers(found, truth):
    return found.low <= truth <= found.high


def at_least(hits, runs, level):
    """Whether so many of these runs are no chance result of a coverage of `level`: 1 in 10,000."""
    return binom.cdf(hits, runs, level) > 1e-4


# shares


@pytest.mark.parametrize(("count", "of"), [(0, 10), (10, 10), (70, 70), (1, 33), (17, 40), (399, 400)])
def test_with_an_image_a_patient_a_share_has_wilsons_interval(count, of):
    found = share(right(count, of), whose(of))
    exact = binomtest(count, of).proportion_ci(method="wilson")
    assert (found.value, found.images, found.right) == (count / of, of, count)
    assert found.low == pytest.approx(exact.low, rel=1e-9, abs=1e-15)
    assert found.high == pytest.approx(exact.high, rel=1e-9)


def test_seventy_of_seventy_is_not_certain():
    assert share(right(70, 70), whose(70)).text() == "1.000 [0.948, 1.000] 70/70"
    assert percent(share(right(70, 70), whose(70))) == "100.0 [94.8, 100.0] 70/70"


@pytest.mark.parametrize("count", [0, 60])
def test_where_all_are_alike_a_patient_counts_once(count):
    found = share(right(count, 60), whose(20, 3))
    low, high = wilson(count / 60, 20.0, t.ppf(0.975, 19))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.low < found.high


def test_images_that_are_copies_count_once_by_hand():
    copied = share(np.repeat(right(13, 20), 3), whose(20, 3))
    low, high = wilson(13 / 20, 60 / (3 * (20 / 19) / (60 / 59)), t.ppf(0.975, 19))
    assert (copied.low, copied.high) == (pytest.approx(low), pytest.approx(high))


def test_patients_whose_images_differ_count_for_no_more_than_independent_images():
    found = share(np.tile([True, False], 30), whose(30, 2))  # every patient one right, one wrong
    assert found.high - found.low >= np.subtract(*wilson(0.5, 60.0, t.ppf(0.975, 29))[::-1])


def test_of_few_patients_only_the_counts_are_given():
    found = share(right(20, 27), whose(LEAST - 1, 3))
    assert not found.has_interval
    assert found.text() == percent(found) == "20/27"
    assert found.to_dict() == {"value": 20 / 27, "low": None, "high": None, "images": 27, "right": 20}
    assert share(right(20, 30), whose(LEAST, 3)).has_interval
    assert share(np.empty(0, bool), Patients(np.empty(0, int))).text() == "not defined"


def test_an_interval_never_looks_like_a_point():
    assert Estimate(1.0, 0.9997, 1.0, 12_000, 12_000).interval() == "[0.9997, 1.0000]"
    assert Estimate(0.5, 0.4, 0.6, 40).interval() == "[0.400, 0.600]"


def test_a_mean_of_squares_is_near_the_plain_one_of_many_patients():
    values = np.random.default_rng(0).beta(2, 8, 400)
    found, error = bounded_mean(values, whose(400)), values.std(ddof=1) / 20
    assert found.low == pytest.approx(values.mean() - Z * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + Z * error, abs=0.1 * error)
    same = bounded_mean(np.full(30, 0.09), whose(30))
    assert same.low < 0.09 < same.high


def test_balanced_accuracy_adds_squares_by_hand():
    one, other = Estimate(0.9, 0.8, 0.95, 40, 36), Estimate(0.6, 0.5, 0.7, 50, 30)
    found = balanced(one, other, apart=True)
    assert found.value == pytest.approx(0.75)
    assert found.low == pytest.approx(0.75 - sqrt(0.1**2 + 0.1**2) / 2)
    assert found.high == pytest.approx(0.75 + sqrt(0.05**2 + 0.1**2) / 2)
    assert balanced(one, other, apart=False).low == pytest.approx(0.75 - 0.1)
    assert not balanced(one, Estimate(0.6, images=5), apart=True).has_interval


@pytest.mark.parametrize(("truth", "alike"), [(0.6, 0), (0.6, 1), (0.9, 0.3), (0.97, 0), (0.97, 1)])
def test_a_share_covers_the_truth(truth, alike):
    random, runs, hits = np.random.default_rng(7), 300, 0
    patients = whose(50, 3)
    for _ in range(runs):
        own = random.random((50, 1)) < truth
        drawn = np.where(random.random((50, 1)) < alike, own, random.random((50, 3)) < truth)
        hits += covers(share(drawn.ravel(), patients), truth)
    assert at_least(hits, runs, 0.93)


def test_the_mean_of_two_shares_covers_the_truth():
    random, runs, hits = np.random.default_rng(8), 200, 0
    for _ in range(runs):
        one, other = (share(random.random(n) < p, whose(n)) for n, p in ((40, 0.97), (60, 0.7)))
        hits += covers(balanced(one, other, apart=True), (0.97 + 0.7) / 2)
    assert at_least(hits, runs, 0.94)


# areas


def drawn(random, positives, negatives, area, spread=1.0):
    """Labels, scores and patients, an image each, of normal scores with this AUROC."""
    labels = np.arange(positives + negatives) < positives
    scores = random.normal(size=len(labels))
    scores[labels] = scores[labels] * spread + norm.ppf(area) * np.sqrt(1 + spread**2)
    return labels, norm.cdf(scores), whose(len(labels))


def test_auroc_has_delongs_variance():
    labels, scores, patients = drawn(np.random.default_rng(0), 30, 50, 0.8)
    scores = np.round(scores, 1)  # with ties
    value, parts = placements(labels, scores)
    wins = np.array([[(p > n) + (p == n) / 2 for n in scores[~labels]] for p in scores[labels]])
    assert value == pytest.approx(wins.mean())
    variance = wins.mean(1).var(ddof=1) / 30 + wins.mean(0).var(ddof=1) / 50
    assert area_variance(labels, parts, patients) == pytest.approx(variance)
    number = wins.mean() * (1 - wins.mean()) / variance
    found = auroc(labels, scores, patients)
    assert (found.low, found.high) == pytest.approx(wilson(wins.mean(), number, Z))


def test_patients_with_images_of_both_classes_have_obuchowskis_variance():
    """Her formula, patient by patient: 12 have images of both classes, 8 positive ones only, 10 negative ones only."""
    random = np.random.default_rng(2)
    owner = np.concatenate([np.arange(20), np.arange(12), np.arange(12), 20 + np.arange(10)])
    labels = np.arange(54) < 20 + 12
    scores = random.normal(size=30)[owner] + random.normal(size=54) + labels
    area, parts = placements(labels, scores)
    wins = (scores[labels][:, None] > scores[~labels]).astype(float)
    x, y = np.zeros(30), np.zeros(30)
    np.add.at(x, owner[labels], wins.mean(1) - area)
    np.add.at(y, owner[~labels], wins.mean(0) - area)
    expected = 20 / (19 * 32**2) * (x @ x) + 22 / (21 * 22**2) * (y @ y) + 2 * 30 / (29 * 32 * 22) * (x @ y)
    assert area_variance(labels, parts, Patients(owner)) == pytest.approx(expected)


def test_copies_of_images_do_not_narrow_auroc():
    labels, scores, patients = drawn(np.random.default_rng(1), 30, 50, 0.8)
    alone = auroc(labels, scores, patients)
    copied = auroc(np.repeat(labels, 4), np.repeat(scores, 4), whose(80, 4))
    assert (copied.value, copied.low, copied.high) == pytest.approx((alone.value, alone.low, alone.high))


@pytest.mark.parametrize(("turned", "value"), [(False, 1.0), (True, 0.0)])
def test_a_perfect_auroc_is_not_certain(turned, value):
    """Near 1 Newcombe's variance is that of 4 m n / (m + n) images."""
    labels = np.arange(50) < 20
    found = auroc(labels ^ turned, np.where(labels, 0.9, 0.1), whose(50))
    low, high = wilson(value, 4 * 20 * 30 / 50, Z)
    assert found.value == value
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    newcombe = sqrt(low * (1 - low) * (1 + (50 / 2 - 1) * ((1 - low) / (2 - low) + low / (1 + low))) / 600)
    if value:
        assert Z * newcombe == pytest.approx(1 - low, rel=0.1)


@pytest.mark.parametrize(("positives", "negatives"), [(LEAST - 1, 100), (100, LEAST - 1), (1, 1)])
def test_few_patients_of_a_class_give_no_area_an_interval(positives, negatives):
    labels, scores, patients = drawn(np.random.default_rng(0), positives, negatives, 0.8)
    for found in (auroc(labels, scores, patients), _auprc(labels, scores, patients, 20, 0)):
        assert not found.has_interval
        assert found.text() == f"n={positives + negatives}"


@pytest.mark.parametrize(
    ("positives", "negatives", "area", "spread"),
    [(10, 10, 0.9, 1.0), (20, 200, 0.97, 2.0), (20, 200, 0.7, 1.0), (50, 50, 0.99, 2.0)],
)
def test_auroc_covers_the_truth(positives, negatives, area, spread):
    random, runs = np.random.default_rng(3), 200
    hits = sum(covers(auroc(*drawn(random, positives, negatives, area, spread)), area) for _ in range(runs))
    assert at_least(hits, runs, 0.94)


def test_auroc_covers_the_truth_with_patients_of_several_images():
    random, runs, hits = np.random.default_rng(4), 200, 0
    for _ in range(runs):
        labels = np.repeat(np.arange(60) < 25, 3)
        scores = np.repeat(random.normal(size=60), 3) * sqrt(0.6) + random.normal(size=180) * sqrt(0.4)
        hits += covers(auroc(labels, norm.cdf(scores + labels * sqrt(2) * norm.ppf(0.85)), whose(60, 3)), 0.85)
    assert at_least(hits, runs, 0.93)


def test_a_perfect_auprc_is_not_certain():
    labels = np.arange(50) < 20
    found = _auprc(labels, np.where(labels, 0.9, 0.1), whose(50), 50, 0)
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(binomtest(20, 20).proportion_ci(method="wilson").low)


@pytest.mark.parametrize("area", [0.7, 0.98])
def test_auprc_covers_the_truth(area):
    random, runs = np.random.default_rng(5), 120
    labels, scores, _ = drawn(random, 20_000, 40_000, area)
    truth = float(average_precision(labels, scores, np.ones((1, 60_000)))[0])
    hits = sum(covers(_auprc(*drawn(random, 40, 80, area), 100, k), truth) for k in range(runs))
    assert at_least(hits, runs, 0.92)


# runs and patients


def test_runs_and_patients_by_hand():
    random = np.random.default_rng(0)
    values = np.clip(random.normal(0.4, 0.05, (4, 12)) + random.normal(0, 0.05, (4, 1)), 0, 1)
    found = runs_and_patients(values, whose(12))
    variance = values.mean(1).var(ddof=1) / 4 + values.mean(0).var(ddof=1) / 12
    reach = t.ppf(0.975, 3) * sqrt(variance)
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach))
    alone = runs_and_patients(values[:1], whose(12))
    reach = t.ppf(0.975, 11) * values[0].std(ddof=1) / sqrt(12)
    assert (alone.low, alone.high) == pytest.approx((values[0].mean() - reach, values[0].mean() + reach))
    assert alone.images == 12


def test_what_cannot_be_seen_to_vary_has_no_interval():
    two = runs_and_patients(np.array([[0.2281, 0.2285]]), whose(2))
    assert (two.value, two.has_interval) == (pytest.approx(0.2283), False)
    for value in (0.0, 0.3, 1.0):
        assert not runs_and_patients(np.full((3, 40), value), whose(40)).has_interval
    assert np.isnan(runs_and_patients(np.full((2, 40), np.nan), whose(40)).value)


def test_an_image_without_a_value_in_one_run_counts_in_the_others():
    values = np.random.default_rng(1).random((3, 30))
    values[1, 4] = np.nan
    found = runs_and_patients(values, whose(15, 2))
    assert found.value == pytest.approx(np.nanmean(values, 1).mean())
    assert found.low < found.value < found.high


@pytest.mark.parametrize("runs", [3, 5, 15])
def test_runs_and_patients_cover_the_truth(runs):
    """Runs that vary much more than patients; where they do not, so few runs make the interval too wide, never less."""
    random, times, hits = np.random.default_rng(6), 300, {"runs": 0, "patients": 0}
    for _ in range(times):
        for kind, spread in (("runs", 0.05), ("patients", 0.002)):
            own = random.normal(0, spread, (runs, 1)) + random.normal(0, 0.05, (1, 40))
            found = runs_and_patients(0.5 + own + random.normal(0, 0.02, (runs, 40)), whose(40))
            hits[kind] += covers(found, 0.5)
    assert at_least(hits["runs"], times, 0.95)
    assert at_least(hits["patients"], times, 0.95)
    assert hits["runs"] / times < 0.995


@pytest.mark.parametrize("each", [1, 3])
def test_one_run_covers_the_truth_over_patients(each):
    random, times, hits = np.random.default_rng(9), 300, 0
    for _ in range(times):
        values = random.beta(4, 8, (20, 1)) + random.normal(0, 0.02, (20, each))
        hits += covers(runs_and_patients(values.reshape(1, -1), whose(20, each)), 4 / 12)
    assert at_least(hits, times, 0.94)
