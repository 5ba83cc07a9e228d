"""Many findings: against scikit-learn, planted answers, chance, too few patients, and two networks side by side."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from dia_analysis import AnalysisInputError
from dia_analysis.statistics.binary_metrics import diagnose
from dia_analysis.statistics.significance import holm
from dia_analysis.xray.findings import FindingReadings, assess_findings, compare_findings, summarize_differences
from tests.support.findings import IMAGES, NAMES, finding_readings


@pytest.fixture(scope="module")
def result():
    return assess_findings(finding_readings(), resamples=200)


def test_each_finding_is_that_of_scikit_learn_on_the_known_images(result):
    given = result.readings
    for place, each in enumerate(result.findings[:3]):
        known = ~np.isnan(given.labels[:, place])
        labels, scores = given.labels[known, place], given.scores[known, place]
        assert each.images == known.sum() == (110 if place == 0 else IMAGES)
        assert each.found.auroc.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert each.found.auprc.value == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    mean = np.mean([each.found.auroc.value for each in result.findings[:3]])
    assert result.macro["auroc"].value == pytest.approx(mean)
    assert result.macro["auprc"].low < result.macro["auprc"].value < result.macro["auprc"].high


def test_the_test_of_chance_finds_what_is_planted_and_nothing_else(result):
    planted, noise, turned, rare = result.findings
    assert planted.corrected < 1e-6 > turned.corrected
    assert noise.corrected > 0.05
    assert [each.corrected for each in result.findings] == pytest.approx(
        holm([each.p for each in result.findings]), nan_ok=True
    )
    assert rare.found is None
    assert (rare.positives, rare.to_dict()["counts_only"], rare.to_dict()["auroc_p"]) == (9, True, None)


def test_of_one_finding_the_mean_has_that_findings_interval():
    """The mean of one AUROC varies as DeLong's variance says, here of both classes together, each patient once."""
    given = finding_readings()
    alone = FindingReadings(
        "one", NAMES[1:2], given.image_names, given.patients, given.labels[:, 1:2], given.scores[:, 1:2]
    )
    found = assess_findings(alone, resamples=200)
    mean, own = found.macro["auroc"], found.findings[0].found.auroc
    assert mean.value == own.value
    assert mean.high - mean.low == pytest.approx(own.high - own.low, rel=0.05)  # Wilson's there, the normal one here


def test_the_summary_begins_with_what_is_wrong(result):
    lines = result.summary().splitlines()
    assert lines[0].startswith("turned round: AUROC 0.")
    assert "lies below 0.5 as a whole" in lines[0]
    assert "each image is treated as one patient" in result.summary()
    rare = next(line for line in lines if line.startswith("  rare"))
    assert rare.split() == ["rare", "9/120"]
    assert any(line.startswith("  mean of 3") for line in lines)
    assert len(result.panels()) == 1
    assert result.to_dataframe().shape == (IMAGES * 4, 4)


def test_patients_widen_the_intervals():
    given = finding_readings()
    twice = FindingReadings(
        "twice",
        given.findings,
        given.image_names,
        tuple(f"{i // 4}" for i in range(IMAGES)),
        given.labels,
        given.scores,
        grouping="by patients",
    )
    found = assess_findings(twice, resamples=50).findings[1].found
    expected = diagnose(given.labels[:, 1] > 0.5, given.scores[:, 1], twice.patients, resamples=50)
    assert (found.auroc, found.patients) == (expected.auroc, 30)


def test_two_networks_are_compared_finding_by_finding():
    results = [
        assess_findings(finding_readings("good"), resamples=20),
        assess_findings(finding_readings("bad", 1, 0.0), resamples=20),
    ]
    found = compare_findings(results)
    assert [each.finding for each in found] == list(NAMES[:3])
    assert found[0].corrected < 1e-4
    assert found[1].corrected > 0.05
    assert "good - bad" in summarize_differences(found)
    other = finding_readings("other")
    fewer = FindingReadings("other", NAMES, other.image_names[::-1], other.patients, other.labels, other.scores)
    with pytest.raises(AnalysisInputError, match="were not given the same images and findings"):
        compare_findings([results[0], assess_findings(fewer, resamples=20)])


def test_scores_that_tell_everything_are_tested_too():
    labels = np.repeat([[0.0], [1.0]], 12, axis=0)
    names = tuple(map(str, range(24)))
    found = assess_findings(FindingReadings("n", ("x",), names, names, labels, labels), resamples=20).findings[0]
    assert found.found.auroc.value == 1
    assert found.p == pytest.approx(3.2e-5, rel=0.1)  # 0.5 / sqrt(25 / (12 * 144)) = 4.157 standard errors
