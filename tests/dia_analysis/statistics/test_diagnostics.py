"""The quality of a two-class test, against counting by hand, scikit-learn and planted answers."""

import json

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from dia_analysis import AnalysisInputError
from dia_analysis.statistics.binary_metrics import (
    average_precision,
    best_threshold,
    calibration_error,
    compare,
    diagnose,
    resampled,
)
from dia_analysis.statistics.intervals import Patients

pytestmark = pytest.mark.numeric

LABELS = np.array([True, True, True, False, False])
SCORES = np.array([0.9, 0.8, 0.3, 0.6, 0.1])


def patients(count, each=1):
    return [f"p{i // each}" for i in range(count)]


def test_by_hand():
    found = diagnose(LABELS, SCORES, patients(5), threshold=0.5)
    assert (found.images, found.patients, found.positives) == (5, 5, 3)
    assert found.accuracy.value == pytest.approx(3 / 5)
    assert found.sensitivity.value == pytest.approx(2 / 3)
    assert found.specificity.value == pytest.approx(1 / 2)
    assert found.balanced_accuracy.value == pytest.approx(7 / 12)
    assert found.auroc.value == pytest.approx(5 / 6)  # of six pairs, one is the wrong way round
    assert found.auprc.value == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found.brier.value == pytest.approx(brier_score_loss(LABELS, SCORES))
    assert (found.ppv.value, found.npv.value) == (2 / 3, 1 / 2)
    assert found.prevalence == 3 / 5
    assert (found.positive_patients, found.negative_patients) == (3, 2)
    json.dumps(found.to_dict(), allow_nan=False)


def test_calibration_by_hand():
    labels, scores = np.array([True, False, True, True]), np.array([0.5, 0.5, 1.0, 0.9])
    found = diagnose(labels, scores, patients(4), resamples=5).calibration_error.value
    assert found == pytest.approx(abs(0.9 - 1) / 4)  # the two at 0.5 are half right; 1.0 is a bin of its own


def test_scores_that_are_the_true_probabilities_are_calibrated():
    random = np.random.default_rng(0)
    scores = random.random(20_000)
    labels = random.random(20_000) < scores
    assert calibration_error(labels, scores) < 0.02
    assert calibration_error(labels, scores**3) > 0.1


def test_the_calibration_error_of_calibrated_scores_stands_beside():
    """It is biased upwards: of calibrated scores it is about what chance gives, and of others far from it."""
    random = np.random.default_rng(0)
    scores = random.random(60)
    errors = [calibration_error(random.random(60) < scores, scores) for _ in range(200)]
    found = diagnose(random.random(60) < scores, scores, patients(60), resamples=200)
    assert found.calibrated_error == pytest.approx(np.mean(errors), abs=5 * np.std(errors) / 200**0.5)
    assert found.calibrated_error > 0.05
    assert f"(calibrated: {found.calibrated_error:.3f})" in found.summary()


def test_areas_equal_scikit_learns_on_every_sample():
    random = np.random.default_rng(4)
    labels, scores = random.random(60) < 0.4, random.integers(0, 12, 60) / 11  # with ties
    weights = resampled(Patients.named(patients(60, 3)), 20, seed=0)
    assert (weights.sum(1) == 60).all()
    for row, auprc in zip(weights, average_precision(labels, scores, weights), strict=True):
        assert auprc == pytest.approx(average_precision_score(labels, scores, sample_weight=row))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_every_number_is_scikit_learns(threshold):
    random = np.random.default_rng(5)
    labels, scores = random.random(90) < 0.4, random.integers(0, 12, 90) / 11  # with ties
    found, called = diagnose(labels, scores, patients(90, 3), threshold=threshold, resamples=20), scores >= threshold
    expected = {
        "accuracy": accuracy_score(labels, called),
        "auroc": roc_auc_score(labels, scores),
        "auprc": average_precision_score(labels, scores),
        "balanced_accuracy": balanced_accuracy_score(labels, called),
        "sensitivity": recall_score(labels, called),
        "specificity": recall_score(~labels, ~called),
        "ppv": precision_score(labels, called),
        "npv": precision_score(~labels, ~called),
        "brier": brier_score_loss(labels, scores),
    }
    assert {name: getattr(found, name).value for name in expected} == pytest.approx(expected)
    counts = {name: (each.right, each.images) for name in expected if (each := getattr(found, name)).right is not None}
    assert counts == {
        "accuracy": ((called == labels).sum(), 90),
        "sensitivity": ((called & labels).sum(), labels.sum()),
        "specificity": ((~called & ~labels).sum(), (~labels).sum()),
        "ppv": ((called & labels).sum(), called.sum()),
        "npv": ((~called & ~labels).sum(), (~called).sum()),
    }
    for name in expected:
        assert getattr(found, name).low < getattr(found, name).value < getattr(found, name).high


def test_a_perfect_test_has_no_interval_without_width():
    labels = np.arange(60) < 30
    found = diagnose(labels, np.where(labels, 1.0, 0.0), patients(60, 2), resamples=20)
    for name in ("accuracy", "auroc", "auprc", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv"):
        estimate = getattr(found, name)
        assert estimate.value == estimate.high == 1
        assert estimate.low < 0.95
    assert (found.brier.value, found.brier.low) == (0, 0)
    assert found.brier.high > 0.05


def test_two_images_have_counts_and_no_interval():
    found = diagnose(np.array([True, False]), np.array([0.9, 0.2]), patients(2), resamples=5)
    assert "[" not in found.summary()
    assert "  sensitivity        1/1" in found.summary().splitlines()
    assert "  AUROC              n=2" in found.summary().splitlines()
    assert (
        "Counts alone stand where there are fewer than 10 patients, too few for an interval (here 1 with positive "
        "images, 1 with negative ones)." in found.summary()
    )
    assert found.to_dict()["remarks"] == found.remarks()


def test_an_auroc_below_one_half_is_remarked_on_where_its_interval_is():
    random = np.random.default_rng(6)
    labels = random.random(80) < 0.5
    scores = norm.cdf(random.normal(labels * -1.5))
    found = diagnose(labels, scores, patients(80), resamples=20)
    (remark,) = found.remarks()
    assert remark.startswith(f"AUROC {found.auroc.value:.3f} [0.")
    assert "lies below 0.5 as a whole: the scores rank the images the wrong way round" in remark
    assert "labels or classes may be swapped" in remark
    assert diagnose(labels, 1 - scores, patients(80), resamples=20).remarks() == []
    assert diagnose(labels, random.random(80), patients(80), resamples=20).remarks() == []


def test_patients_with_many_like_images_widen_the_interval():
    random = np.random.default_rng(2)
    labels = np.repeat(random.random(30) < 0.5, 10)
    scores = np.repeat(random.random(30), 10)
    alone = diagnose(labels, scores, patients(300), resamples=5).auroc
    together = diagnose(labels, scores, patients(300, each=10), resamples=5).auroc
    assert alone.value == together.value
    assert (together.high - together.low) > 2 * (alone.high - alone.low)


def test_one_class_leaves_numbers_undefined_and_says_so():
    found = diagnose(np.ones(4, bool), np.array([0.2, 0.9, 0.8, 0.7]), patients(4), resamples=20)
    assert found.to_dict()["auroc"] == {"value": None, "low": None, "high": None, "images": 4, "right": None}
    assert found.sensitivity.value == pytest.approx(3 / 4)
    assert "specificity        not defined" in found.summary()


def test_the_same_seed_gives_the_same_intervals():
    random = np.random.default_rng(9)
    labels, scores = np.arange(40) < 20, random.random(40)
    first, again, other = (diagnose(labels, scores, patients(40), resamples=50, seed=s) for s in (0, 0, 1))
    assert repr(first) == repr(again)  # NaN is not equal to itself
    assert first.auprc != other.auprc
    assert first.auroc == other.auroc  # nothing is drawn for it


def test_the_best_threshold_separates_what_can_be_separated():
    labels, scores = np.array([False, False, True, True]), np.array([0.1, 0.2, 0.3, 0.9])
    assert best_threshold(labels, scores) == pytest.approx(0.25)
    assert best_threshold(np.array([True, False]), np.array([0.9, 0.1])) == 0.5
    with pytest.raises(AnalysisInputError, match="images of both classes"):
        best_threshold(np.ones(3, bool), np.array([0.1, 0.2, 0.3]))


def test_a_better_test_is_found_better_and_an_equal_one_equal():
    random = np.random.default_rng(3)
    labels = random.random(400) < 0.5
    good, bad = (norm.cdf(random.normal(labels * d - d / 2)) for d in (3.0, 0.5))
    found = compare(labels, (good, 0.5), (bad, 0.5), patients(400, 2))
    assert found.mcnemar_p < 1e-6
    assert found.auroc_difference.low > 0.1
    assert found.only_first > found.only_second
    assert found.auroc_p < 1e-6
    same = compare(labels, (good, 0.5), (good, 0.5), patients(400, 2))
    assert (same.mcnemar_p, same.auroc_difference.value, same.accuracy_difference.value) == (1.0, 0.0, 0.0)
    for difference in (same.auroc_difference, same.accuracy_difference):
        assert difference.low < 0 < difference.high
    assert same.to_dict()["auroc_p"] is None


def test_the_difference_of_two_aurocs_has_delongs_variance():
    random = np.random.default_rng(7)
    labels = np.arange(90) < 40
    base = random.normal(labels * 1.0)
    one, other = (norm.cdf(base + random.normal(size=90)) for _ in range(2))
    found = compare(labels, (one, 0.5), (other, 0.5), patients(90))
    wins = [(s[labels][:, None] > s[~labels]).astype(float) for s in (one, other)]
    gain = wins[0] - wins[1]
    variance = gain.mean(1).var(ddof=1) / 40 + gain.mean(0).var(ddof=1) / 50
    assert found.auroc_difference.value == pytest.approx(gain.mean())
    assert found.auroc_p == pytest.approx(2 * norm.sf(abs(gain.mean()) / variance**0.5))
    assert found.auroc_difference.high == pytest.approx(gain.mean() + norm.ppf(0.975) * variance**0.5)


def test_the_difference_of_two_accuracies_by_hand():
    """Bonett and Price: one image is added to each kind of disagreement, two to all."""
    labels = np.ones(40, bool)
    first, second = np.full(40, 0.9), np.full(40, 0.9)
    first[:2], second[2:9] = 0.1, 0.1  # 7 that only the first gets right, 2 only the second
    found = compare(labels, (first, 0.5), (second, 0.5), patients(40)).accuracy_difference
    one, other = 8 / 42, 3 / 42
    reach = norm.ppf(0.975) * ((one + other - (one - other) ** 2) / 42) ** 0.5
    assert found.value == pytest.approx(5 / 40)
    assert (found.low, found.high) == pytest.approx((one - other - reach, one - other + reach))


@pytest.mark.parametrize("each", [1, 3])
def test_differences_cover_the_truth(each):
    """Two tests of the same quality differ by nothing; at 5 in 100 the p of their AUROCs is below 0.05."""
    random, runs, hits = np.random.default_rng(8), 200, np.zeros(3)
    for _ in range(runs):
        labels = np.repeat(np.arange(60) < 30, each)
        shared = np.repeat(random.normal(size=60), each)
        one, other = (norm.cdf(shared + random.normal(size=60 * each) + labels * 2.0 - 1) for _ in range(2))
        found = compare(labels, (one, 0.5), (other, 0.5), patients(60 * each, each))
        inside = [e.low <= 0 <= e.high for e in (found.accuracy_difference, found.auroc_difference)]
        hits += [*inside, found.auroc_p >= 0.05]
    assert (binom.cdf(hits, runs, 0.94) > 1e-4).all()


def test_mcnemar_by_hand():
    labels = np.ones(6, bool)
    first, second = np.array([0.9] * 5 + [0.1]), np.array([0.1] * 5 + [0.9])
    found = compare(labels, (first, 0.5), (second, 0.5), patients(6))
    assert (found.only_first, found.only_second) == (5, 1)
    assert not found.accuracy_difference.has_interval
    assert found.mcnemar_p == pytest.approx(2 * (1 + 6) / 2**6)


@pytest.mark.parametrize("scores", [[0.1, np.nan], [0.1, 1.1], [-0.1, 0.5]])
def test_what_is_no_probability_is_refused(scores):
    with pytest.raises(AnalysisInputError, match="probabilities"):
        diagnose(np.array([True, False]), np.array(scores), patients(2))


def test_lengths_that_differ_are_refused():
    with pytest.raises(AnalysisInputError, match="2 labels, 2 scores and 3 patients"):
        diagnose(np.array([True, False]), np.array([0.1, 0.9]), patients(3))
