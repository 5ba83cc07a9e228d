"""The quality of a two-class test, against counting by hand, scikit-learn and planted answers."""

import json

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from dia_analysis import AnalysisInputError
from dia_analysis.diagnostics import best_threshold, compare, diagnose, measures, resampled

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
    assert found.accuracy_wilson.low == pytest.approx(0.2307, abs=1e-4)
    assert found.accuracy_wilson.high == pytest.approx(0.8824, abs=1e-4)
    json.dumps(found.to_dict(), allow_nan=False)


def test_calibration_by_hand():
    labels, scores = np.array([True, False, True, True]), np.array([0.5, 0.5, 1.0, 0.9])
    found = diagnose(labels, scores, patients(4), resamples=5).calibration_error.value
    assert found == pytest.approx(abs(0.9 - 1) / 4)  # the two at 0.5 are half right; 1.0 is a bin of its own


def test_scores_that_are_the_true_probabilities_are_calibrated():
    random = np.random.default_rng(0)
    scores = random.random(20_000)
    labels = random.random(20_000) < scores
    weights = np.ones((1, 20_000))
    assert measures(labels, scores, 0.5, weights)["calibration_error"] < 0.02
    assert measures(labels, scores**3, 0.5, weights)["calibration_error"] > 0.1


def test_areas_equal_scikit_learns_on_every_sample():
    random = np.random.default_rng(4)
    labels, scores = random.random(60) < 0.4, random.integers(0, 12, 60) / 11  # with ties
    weights = resampled(patients(60, 3), 20, seed=0)
    found = measures(labels, scores, 0.5, weights)
    for row, auroc, auprc in zip(weights, found["auroc"], found["auprc"], strict=True):
        assert auroc == pytest.approx(roc_auc_score(labels, scores, sample_weight=row))
        assert auprc == pytest.approx(average_precision_score(labels, scores, sample_weight=row))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    random, hits = np.random.default_rng(1), 0
    for seed in range(60):
        labels = random.random(150) < 0.6
        scores = norm.cdf(random.normal(labels * 1.0))
        found = diagnose(labels, scores, patients(150), resamples=200, seed=seed).auroc
        hits += found.low <= norm.cdf(1 / np.sqrt(2)) <= found.high
    assert 51 <= hits <= 60


def test_patients_with_many_like_images_widen_the_interval():
    random = np.random.default_rng(2)
    labels = np.repeat(random.random(30) < 0.5, 10)
    scores = np.repeat(random.random(30), 10)
    alone = diagnose(labels, scores, patients(300), resamples=300).auroc
    together = diagnose(labels, scores, patients(300, each=10), resamples=300).auroc
    assert alone.value == together.value
    assert (together.high - together.low) > 2 * (alone.high - alone.low)


def test_one_class_leaves_numbers_undefined_and_says_so():
    found = diagnose(np.ones(4, bool), np.array([0.2, 0.9, 0.8, 0.7]), patients(4), resamples=20)
    assert found.to_dict()["auroc"] == {"value": None, "low": None, "high": None}
    assert found.sensitivity.value == pytest.approx(3 / 4)
    assert "specificity        not defined" in found.summary()


def test_the_same_seed_gives_the_same_intervals():
    first, again, other = (diagnose(LABELS, SCORES, patients(5), seed=s) for s in (0, 0, 1))
    assert first == again
    assert first.auroc.value == other.auroc.value


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
    found = compare(labels, (good, 0.5), (bad, 0.5), patients(400, 2), resamples=200)
    assert found.mcnemar_p < 1e-6
    assert found.auroc_difference.low > 0.1
    assert found.only_first > found.only_second
    same = compare(labels, (good, 0.5), (good, 0.5), patients(400, 2), resamples=50)
    assert (same.mcnemar_p, same.auroc_difference.value, same.auroc_difference.high) == (1.0, 0.0, 0.0)


def test_mcnemar_by_hand():
    labels = np.ones(6, bool)
    first, second = np.array([0.9] * 5 + [0.1]), np.array([0.1] * 5 + [0.9])
    found = compare(labels, (first, 0.5), (second, 0.5), patients(6), resamples=10)
    assert (found.only_first, found.only_second) == (5, 1)
    assert found.mcnemar_p == pytest.approx(2 * (1 + 6) / 2**6)


@pytest.mark.parametrize("scores", [[0.1, np.nan], [0.1, 1.1], [-0.1, 0.5]])
def test_what_is_no_probability_is_refused(scores):
    with pytest.raises(AnalysisInputError, match="probabilities"):
        diagnose(np.array([True, False]), np.array(scores), patients(2))


def test_lengths_that_differ_are_refused():
    with pytest.raises(AnalysisInputError, match="2 labels, 2 scores and 3 patients"):
        diagnose(np.array([True, False]), np.array([0.1, 0.9]), patients(3))
