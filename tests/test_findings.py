"""What the sentences say: each follows from the numbers, and the paper's claim is judged only where it can be."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_correlation import of_maps

from dia_analysis import (
    CostResult,
    GiniResult,
    GradCAMResult,
    NetworkCost,
    Provenance,
    RandomisationResult,
    RoadResult,
    StageGini,
    TrustChecks,
)
from dia_analysis.beside_untrained import BesideUntrained
from dia_analysis.findings import cam_finding, cost_findings, gini_finding
from dia_analysis.importance import Importance

SINGLE, LSTM = "one module per layer", "DIA-LSTM"


def correlated(noise, layers=3):
    torch.manual_seed(1)
    return of_maps(torch.randn(6, 1, 400) + noise * torch.randn(6, layers, 400), 3)


@pytest.mark.parametrize(
    ("trained", "untrained", "verb", "verdict"),
    [
        (0.1, 3.0, "raised", "holds here"),
        (3.0, 0.1, "lowered", "does not hold here"),
        (0.1, 0.1, "hardly changed", "holds here"),
    ],
)
def test_correlation_says_what_training_did(trained, untrained, verb, verdict):
    outcome = BesideUntrained(correlated(trained), correlated(untrained))
    found = outcome.finding()
    r, before = outcome.trained.mean_r, outcome.untrained.mean_r
    assert found.text == f"Mean r is {r:.2f}; the same network untrained has {before:.2f}, so training {verb} it."
    assert (found.ours, found.verdict) == (f"{r:.2f}", verdict)
    assert found.comparison() == f"The paper: {found.paper}: {verdict}."


def test_correlation_without_a_pair_or_without_an_untrained_copy():
    nothing = BesideUntrained(correlated(1.0, layers=1), correlated(1.0, layers=1)).finding()
    assert nothing.text.startswith("There is no defined correlation")
    assert nothing.verdict == "inconclusive"
    stored = BesideUntrained(correlated(0.1), None).finding()
    assert "A store holds no untrained copy" in stored.text
    assert BesideUntrained(correlated(0.1), correlated(1.0, layers=1)).finding().text.endswith("untrained has none.")


def forests(rows, r2=0.5):
    """One stage whose importance has these rows, in every repeat and fold."""
    size = len(rows)
    gini = np.full((5, size, size), np.nan)
    for target, row in enumerate(rows):
        gini[:, target, : target + 1] = row
    by_fold = np.full((5, size), r2)
    numbers = Importance(gini, by_fold, by_fold * 0, gini, gini * 0)
    layers = tuple((f"l{i}", 0) for i in range(size + 1))
    stage = StageGini(1, "channel", layers, 4, 4, 16, 0, (), None, None, numbers)
    return GiniResult((stage,), 4, False, Provenance())


NEAR, FAR = forests([[1], [0.5, 0.5], [0.1, 0.4, 0.5]]), forests([[1], [0.5, 0.5], [0.6, 0.2, 0.2]], 0.9)
SHORT = forests([[1], [0.5, 0.5]])


def test_gini_sets_the_shares_beside_each_other():
    found = gini_finding({"a": NEAR, "b": FAR}, {"a": SINGLE, "b": LSTM})
    assert "10 % with a, 60 % with b lies beyond the two nearest earlier layers; it would be 33 % if" in found.text
    assert "R² on images held out is 0.50 with a, 0.90 with b." in found.text
    assert found.verdict == "holds here"
    assert gini_finding({"a": FAR, "b": NEAR}, {"a": SINGLE, "b": LSTM}).verdict == "does not hold here"


@pytest.mark.parametrize("kinds", [(SINGLE, SINGLE), (LSTM, LSTM), ("shared", LSTM), ("none", SINGLE)])
def test_gini_cannot_tell_without_both_kinds_of_network(kinds):
    found = gini_finding({"a": NEAR, "b": FAR}, dict(zip("ab", kinds, strict=True)))
    assert found.verdict == "inconclusive"
    assert "DIA-LSTM beside one" in found.reason


def test_gini_of_short_stages_has_no_number():
    found = gini_finding({"a": SHORT}, {"a": SINGLE})
    assert (found.ours, found.verdict) == ("no number", "inconclusive")


def cost(name, baseline, ratio, interval, parameters=1000):
    seconds = np.array([1.0])
    shape = (1, 3, 8, 8)
    ratios = (np.array([ratio]), ratio, interval)
    return NetworkCost(
        name, baseline, parameters, parameters - 1000, 0, 2 * parameters, seconds, *ratios, shape, Provenance()
    )


@pytest.mark.parametrize(
    ("attention", "baseline", "device", "low", "verdict"),
    [
        (LSTM, "cifar_resnet164", "cuda:0", 1.10, "holds here"),
        (LSTM, "cifar_resnet164", "cuda:0", 1.13, "does not hold here"),
        ("DIA-LSTM (Light)", "cifar_resnet164", "cuda:0", 1.02, "does not hold here"),
        (LSTM, "cifar_resnet164", "cpu", 1.10, "inconclusive"),
        (LSTM, "cifar_resnet56", "cuda:0", 1.10, "inconclusive"),
        (SINGLE, "cifar_resnet164", "cuda:0", 1.10, "inconclusive"),
    ],
)
def test_cost_is_held_against_the_paper_only_for_its_network_on_a_gpu(attention, baseline, device, low, verdict):
    plain = cost(baseline, baseline, 1.0, (1.0, 1.0))
    result = CostResult((plain, cost("net", baseline, 1.15, (low, 1.2), 1250)), device, 1, 0)
    (found,) = cost_findings(result, {"net": attention})
    assert found.verdict == verdict
    assert found.text == (
        f"net takes 1.15 times as long as {baseline} (95 % interval {low:.2f} to 1.20), with +250 parameters (+25.0 %) "
        "and +25.0 % FLOPs."
    )


def maps(name, values, size=(4, 4)):
    count = len(values)
    zero, half = np.zeros(count, int), np.full(count, 0.5)
    names = tuple(f"#{i}" for i in range(count))
    layer = np.asarray(values, np.float32)
    return GradCAMResult(name, "l", 0, "gradcam", ("x",), names, size, layer, zero, half, zero, half)


def test_maps_are_compared_where_both_say_something():
    ramp, flat = np.array([[0.0, 1], [2, 3]]), np.zeros((2, 2))
    found = cam_finding([maps("a", [ramp, ramp]), maps("b", [2 * ramp, flat])], None)
    assert "The maps of a and b for the same image correlate at 1.00 on average." in found.text
    assert "1 of 2 maps of b are zero everywhere." in found.text
    assert "was not checked here" in found.text
    assert found.ours == "correlation of maps 1.00"
    nothing = cam_finding([maps("a", [ramp]), maps("b", [flat])], ())
    assert "cannot be compared: one of them is always empty" in nothing.text
    assert nothing.ours == "no number"
    assert "different sizes" in cam_finding([maps("a", [ramp]), maps("b", [ramp], (8, 8))], ()).text


def checked(name, scores):
    """Maps that depend on the weights; `scores` are the combined ROAD scores."""
    rho = np.zeros((2, 1, len(scores)))
    randomisation = RandomisationResult(("m",), (1.0,), rho, rho, None, 0)
    morf, lerf = np.zeros((len(scores), 2)), np.repeat(2 * np.array(scores)[:, None], 2, axis=1)
    return TrustChecks(name, randomisation, RoadResult(morf, lerf, lerf[None], 0))


def test_only_maps_that_pass_are_said_to_pass():
    sure, unsure, worse = [0.2, 0.21, 0.19], [0.5, -0.4, 0.1], [-0.2, -0.21, -0.19]
    checks = [checked("a", sure), checked("b", unsure), checked("c", worse), checked("d", sure)]
    text = cam_finding([maps("a", [np.eye(2)])], checks).text
    assert "The maps of a and d pass both checks." in text
    assert "For the maps of b the checks do not decide." in text
    assert "Do not rely on the maps of c: removing what they mark lowers the score no more" in text


def test_self_attention_is_not_held_against_the_papers_number():
    result = correlated(0.1)
    stages = tuple(replace(stage, kind="self-attention") for stage in result.stages)
    found = BesideUntrained(replace(result, stages=stages), None).finding()
    assert found.verdict == "inconclusive"
    assert "self-attention" in found.reason
