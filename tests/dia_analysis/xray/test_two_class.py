"""Two-class results: with and without patients seen in training, at two thresholds, several networks, several runs."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dia_analysis import AnalysisInputError
from dia_analysis.xray.diagnosis import (
    NO_PATIENTS,
    about_tests,
    assess,
    compare_all,
    over_seeds,
    table,
)
from tests.support.readings import LABELS, PATIENTS, SCORES, readings

pytestmark = pytest.mark.numeric


def test_both_thresholds_by_hand():
    found = assess(readings(), resamples=20)
    half, chosen = found.everyone.half, found.everyone.chosen
    assert (half.threshold, chosen.threshold) == (0.5, 0.3)
    assert (half.sensitivity.value, chosen.sensitivity.value) == (2 / 4, 3 / 4)
    assert half.specificity.value == chosen.specificity.value == 1 / 2
    assert repr(half.auroc) == repr(chosen.auroc)  # NaN is not equal to itself
    assert found.majority_accuracy == pytest.approx(4 / 6)
    assert found.counts == {"NORMAL": 2, "PNEUMONIA": 4}


def test_patients_seen_in_training_are_left_out_by_hand():
    found = assess(readings(), resamples=20)
    assert found.left_out == (1, 2)
    assert (found.unseen.half.images, found.unseen.half.patients, found.unseen.half.positives) == (4, 4, 2)
    assert found.unseen.half.sensitivity.value == 1 / 2
    assert "Without the 2 images of 1 patient whose id also occurs in training" in found.summary()
    assert "4 images of 4 patients, 2 positive" in found.summary()


@pytest.mark.parametrize(
    ("in_training", "left_out", "sentence"),
    [
        (None, None, "Whether patients of these images also occur in training is not known."),
        (frozenset(), (0, 0), "No patient id of these images occurs in training."),
        (frozenset(PATIENTS), (5, 6), "that leaves none"),
        (frozenset({"z"}), (0, 0), "No patient id of these images occurs in training."),
    ],
)
def test_without_a_second_set_of_numbers_it_says_why(in_training, left_out, sentence):
    found = assess(readings(in_training=in_training), resamples=20)
    assert found.unseen is None
    assert found.left_out == left_out
    assert sentence in found.summary()
    assert found.to_dict()["without_patients_in_training"] is None


def test_the_document_holds_numbers_where_accuracy_belongs_and_no_nan():
    document = assess(readings(labels=np.ones(6, bool), in_training=None), resamples=20).to_dict()
    json.dumps(document, allow_nan=False)
    assert document["auroc"]["value"] is None
    assert document["threshold"] == 0.5
    assert document["chosen_threshold"] == {"value": 0.3, "source": "planted"}
    assert document["sensitivity"]["value"] == pytest.approx(3 / 6)
    assert document["at_chosen_threshold"]["sensitivity"]["value"] == pytest.approx(4 / 6)
    assert document["accuracy_interval"] == {"value": 3 / 6, "low": None, "high": None, "images": 6, "right": 3}
    assert "accuracy" not in document
    assert document["grouping"] == NO_PATIENTS


def test_networks_are_compared_at_both_thresholds():
    perfect = readings("perfect", np.where(LABELS, 0.9, 0.1), 0.5)
    poor = readings("poor", SCORES, 0.15)
    (found,) = compare_all([assess(r, resamples=20) for r in (perfect, poor)])
    assert (found.half.only_first, found.half.only_second) == (3, 0)
    assert (found.chosen.only_first, found.chosen.only_second) == (1, 0)
    assert found.half.accuracy_difference.value == pytest.approx(3 / 6)
    assert found.half.mcnemar_p == pytest.approx(2 / 2**3)
    assert found.chosen.mcnemar_p == 1
    assert found.tests == 2  # six images are too few for a test of AUROC
    assert found.corrected[1:] == (2 * found.half.mcnemar_p, 1)
    assert np.isnan(found.corrected[0])
    assert "McNemar's exact p = 0.25 (corrected 0.5)" in found.summary()
    assert "AUROC +0.250 (too few patients for an interval), not tested" in found.summary()
    assert "corrected by Holm's method for the 2 tests listed here" in about_tests([found])
    assert found.to_dict()["holm"] == {"tests": 2, "auroc_p": None, "at_0.5": 0.5, "at_chosen_threshold": 1}
    assert "perfect minus poor" in found.summary()


def test_other_images_cannot_be_compared():
    one = assess(readings(), resamples=5)
    for changes in ({"image_names": tuple("abcdef")}, {"labels": ~LABELS}):
        other = assess(readings("other", **changes), resamples=5)
        with pytest.raises(AnalysisInputError, match="net and other were not given the same images"):
            compare_all([one, other])


def test_the_spread_over_runs_by_hand_and_only_of_networks_with_several():
    perfect = readings("a-0", np.where(LABELS, 0.9, 0.1), 0.5)
    alone = replace(readings("b-0"), network="other")
    results = [assess(r, resamples=5) for r in (perfect, readings("a-1"), alone)]
    (found,) = over_seeds(results)
    assert found.names == ("a-0", "a-1")
    mean, spread = found.half["accuracy"]
    assert mean == pytest.approx((1 + 3 / 6) / 2)
    assert spread == pytest.approx((1 - 3 / 6) / 2**0.5)
    assert "resnet, 2 runs, mean ± standard deviation: accuracy 0.750 ± 0.354" in found.summary()
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_table_has_two_lines_a_network():
    lines = table([assess(readings(name), resamples=5) for name in ("one", "two")]).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["one", "0.500"], ["one", "0.300"], ["two", "0.500"], ["two", "0.300"],
    ]  # fmt: skip
