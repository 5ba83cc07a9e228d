"""What the sentences say: each follows from the numbers, and the paper's claim is judged only where it can be."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from dia_analysis import (
    CostResult,
    GiniResult,
    GradCAMResult,
    NetworkCost,
    Provenance,
    RandomizationResult,
    RoadResult,
    StageGini,
    TrustChecks,
    TrustReport,
)
from dia_analysis.importance.readings import GiniReadings
from dia_analysis.importance.scores import Importance
from dia_analysis.paper.findings import cam_finding, cost_findings, gini_finding
from dia_analysis.paper.untrained import Baseline, BesideUntrained, Training
from tests.support.gates import of_maps

SINGLE, LSTM = "one module per layer", "DIA-LSTM"


def correlated(noise, layers=3):
    torch.manual_seed(1)
    return of_maps(torch.randn(6, 1, 400) + noise * torch.randn(6, layers, 400), 3)


def baseline(noise, exact=True, layers=3):
    return Baseline(correlated(noise, layers), "random, with the run's seed 3", "as saved", exact)


TRAINED = Training(True, 90, 100, 10)


def number(result):
    return f"{result.mean_r:.2f}"


@pytest.mark.parametrize(("now", "before", "verb"), [(0.1, 3.0, "rose"), (3.0, 0.1, "fell")])
def test_correlation_says_what_training_did_in_every_stage_and_that_one_run_gives_no_verdict(now, before, verb):
    outcome = BesideUntrained(correlated(now), baseline(before), baseline(before), TRAINED)
    found = outcome.finding()
    first, then = number(outcome.untrained), number(outcome.trained)
    again = f"({first} with batch-norm statistics re-estimated)"
    assert found.text.startswith(f"Mean r is {then}; before training it is {first} {again}. Of r {then}, ")
    assert " remains when the second map is another image's. " in found.text
    static = [f"{result.numbers['channel_share'].value:.0%}" for result in (outcome.trained, outcome.untrained)]
    assert f"{static[0]} (before training {static[1]}) of the maps' variance is static. This describes" in found.text
    shares = [result.stages[0].share_above_0_8 for result in (outcome.untrained, outcome.trained)]
    assert sorted(shares) == [0, 1]
    assert found.text.endswith(
        f"mean r {verb} from {first} to {then}, "
        f"the share of r above 0.8 {verb} from {shares[0]:.0%} to {shares[1]:.0%}."
    )
    assert (found.ours, found.verdict) == (then, "inconclusive")
    assert found.comparison().endswith(
        "inconclusive, as this is one run; it takes three or more, which differ in the "
        "seed, to hold a mean r against the paper's."
    )


def with_numbers(mean, share):
    """A stage of one pair with these numbers."""
    result = correlated(0.1)
    return replace(result, stages=(replace(result.stages[0], mean_r=mean, share_above_0_8=share),), mean_r=mean)


def told(now, before, reestimated):
    baselines = [Baseline(with_numbers(*numbers), "w", "s", True) for numbers in (before, reestimated)]
    return BesideUntrained(with_numbers(*now), *baselines, TRAINED).finding().text


def test_a_share_that_moved_is_a_change_where_the_mean_hardly_moved():
    text = told((0.80, 0.62), (0.78, 0.29), (0.78, 0.29))
    assert "Stage 1: mean r hardly changed, from 0.78 to 0.80, the share of r above 0.8 rose from 29% to 62%." in text
    assert "Stage 1 hardly changed: mean r 0.78 to 0.80, above 0.8 60% to 62%." in told(
        (0.80, 0.62), *2 * [(0.78, 0.6)]
    )


def test_the_other_statistics_are_told_where_they_say_something_else():
    text = told((0.81, 0.62), (0.95, 1.0), (0.74, 0.29))
    assert (
        "mean r fell from 0.95 to 0.81, the share of r above 0.8 fell from 100% to 62%; beside re-estimated batch-norm "
        "statistics, mean r rose from 0.74 to 0.81, the share rose from 29% to 62%."
    ) in text


def test_other_random_weights_do_not_tell_what_training_did():
    text = BesideUntrained(correlated(0.1), baseline(3.0, exact=False), None, TRAINED).finding().text
    assert "with random weights it is" in text
    assert "(random weights " in text
    assert not {"rose", "fell", "changed"} & set(text.replace(",", "").split())


def test_correlation_without_a_pair_or_without_a_baseline():
    nothing = BesideUntrained(correlated(1.0, layers=1), baseline(1.0, layers=1), None, TRAINED).finding()
    assert nothing.text.startswith("There is no defined correlation")
    assert (nothing.verdict, nothing.reason) == ("inconclusive", "it takes two layers in a stage")
    stored = BesideUntrained(correlated(0.1)).finding()
    assert "A store holds nothing from before training" in stored.text
    assert (stored.verdict, stored.reason) == (
        "inconclusive",
        "a capture store does not tell whether its network was trained",
    )
    undefined = BesideUntrained(correlated(0.1), baseline(1.0, layers=1), None, TRAINED).finding().text
    assert "before training it is undefined. Of r " in undefined
    flat = BesideUntrained(of_maps(torch.ones(2, 3, 8)), None, None, TRAINED).finding()
    assert flat.reason == "every pair has a constant map"


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        (Training(False, 100, 100, 10), "no training of it is recorded, so it may hold random weights"),
        (Training(True, 0, 0, 10), "these images have no labels that the network knows"),
        (Training(True, 12, 100, 10), r"12.0% (95% interval 7.0% to 19.8%), is not above chance, 10.0%"),
    ],
)
def test_a_network_not_known_to_be_trained_says_why(training, reason):
    found = BesideUntrained(correlated(0.01), baseline(3.0), None, training).finding()
    assert found.verdict == "inconclusive"
    assert reason in found.reason


@pytest.mark.parametrize(("correct", "images"), [(0, 20), (12, 100), (90, 100), (20, 20), (1, 1)])
def test_the_interval_of_an_accuracy_is_wilsons(correct, images):
    found = Training(True, correct, images, 10).interval
    wanted = scipy.stats.binomtest(correct, images).proportion_ci(0.95, "wilson")
    assert found == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_a_network_that_diverged_is_said_to_have():
    maps = torch.randn(4, 3, 8)
    some, every = maps.clone(), torch.full_like(maps, torch.nan)
    some[:, 1] = torch.nan
    found = BesideUntrained(of_maps(every), baseline(1.0), None, TRAINED).finding()
    assert found.text == (
        "The attention maps of 3 layers, the first of them layers.0.gate, are not finite (NaN or infinite) on all "
        "images: this network has diverged."
    )
    assert (found.ours, found.verdict, found.reason) == ("no number", "inconclusive", "the network has diverged")
    found = BesideUntrained(of_maps(some), None, None, TRAINED).finding()
    assert "The attention maps of layer layers.1.gate are not finite" in found.text
    assert found.reason == "the network has diverged"


def forests(rows, r2=0.5, images=60, spread=0.01, rows_are="vector"):
    """One stage whose importance has these rows; on the halves, one of which has a bit more on the first source."""
    size = len(rows)
    gini = np.full((size, size), np.nan)
    for target, row in enumerate(rows):
        gini[target, : target + 1] = row
    halves = np.tile(gini, (10, 2, 1, 1))
    halves[:, 0, 2:, 0] += spread
    halves[:, 0, 2:, 2:3] -= spread
    by_fold = np.tile(np.broadcast_to(r2, size), (5, 1))
    numbers = Importance(gini, halves, by_fold, by_fold * 0, *(np.tile(gini * k, (5, 1, 1)) for k in (1, 0)))
    layers = tuple((f"l{i}", 0) for i in range(size + 1))
    stage = StageGini(1, "channel", layers, images, 4, images, 0, (4,) * (size + 1), (), None, None, numbers)
    return GiniResult((stage,), images, rows_are, Provenance())


def readings(*arguments, untrained=None, **options):
    copy = None if untrained is None else {"vector": forests(untrained)}
    return GiniReadings({"vector": forests(*arguments, **options)}, copy)


def test_untrained_networks_may_be_measured_by_fewer_rows():
    some = readings(CLOSE, untrained=DISTANT)
    more = GiniReadings({"centred": forests(CLOSE, rows_are="centred"), **some.trained}, some.untrained)
    assert [untrained is None for _, _, untrained in more.pairs()] == [True, False]
    said = "untrained: vector rows only."
    assert said in more.summary()
    assert said not in some.summary()
    assert list(more.to_dict()["untrained"]) == ["vector"]


CLOSE, DISTANT = [[1], [0.5, 0.5], [0.1, 0.4, 0.5]], [[1], [0.5, 0.5], [0.6, 0.2, 0.2]]
NEAR, FAR = readings(CLOSE, untrained=DISTANT), readings(DISTANT, 0.9)


def test_gini_says_the_shares_with_their_intervals_and_what_they_are_untrained():
    """Halves that differ by 0.01 in each split give a standard error of 0.005, and with t = 2.306 or so ± 1 point."""
    found = gini_finding({"a": NEAR, "b": FAR}, {"a": SINGLE, "b": LSTM})
    assert "10 % [9, 11] with a, 60 % [59, 61] with b lies beyond the two nearest earlier layers" in found.text
    assert "it would be 33 % if all earlier layers counted alike" in found.text
    assert (
        "On the 1 layer that can be predicted in all, DIA-LSTM's share minus the other's is +50 points [+50, +50]: more"
        in (found.text)
    )
    assert "Untrained it is 60 % with a." in found.text
    assert "R² on images held out is 0.50 with a, 0.90 with b." in found.text


def test_one_run_of_each_gives_no_verdict_about_training():
    found = gini_finding({"a": NEAR, "b": FAR}, {"a": SINGLE, "b": LSTM})
    assert found.verdict == "inconclusive"
    assert "another run may come out otherwise: it takes 3 trained networks of each kind" in found.reason


def three_of_each(single, lstm, unknown=()):
    """Networks whose share beyond the two nearest is as given."""
    shares = {f"{kind}{k}": share for kind, some in (("s", single), ("l", lstm)) for k, share in enumerate(some)}
    results = {name: readings([[1], [0.5, 0.5], [share, 0.2, 0.8 - share]]) for name, share in shares.items()}
    return gini_finding(results, {name: SINGLE if name[0] == "s" else LSTM for name in shares}, unknown)


def test_three_runs_of_each_give_a_verdict_by_their_interval():
    close, distant, mixed = (0.1, 0.12, 0.14), (0.4, 0.43, 0.45), (0.05, 0.2, 0.3)
    assert three_of_each(close, distant).verdict == "holds here"
    assert three_of_each(distant, close).verdict == "does not hold here"
    undecided = three_of_each(close, mixed)
    assert undecided.verdict == "inconclusive"
    assert "95 % interval of the difference over networks is -" in undecided.reason
    untrained = three_of_each(close, distant, ("l1",))
    assert (untrained.verdict, untrained.reason) == ("inconclusive", "l1 is not known to be trained")
    assert three_of_each((0.1,) * 3, (0.4,) * 3).verdict == "inconclusive"  # the same network three times


def test_gini_compares_only_layers_that_can_be_predicted_in_all():
    """Layer 5 has R² below 0 in one network."""
    four = [*CLOSE, [0.1, 0.1, 0.1, 0.7]], [*DISTANT, [0.9, 0.1, 0, 0]]
    results = {"a": readings(four[0], (0.5, 0.5, 0.5, -0.1)), "b": readings(four[1])}
    found = gini_finding(results, {"a": SINGLE, "b": LSTM})
    assert "On the 1 layer that can be predicted in all" in found.text
    assert "is +50 points" in found.text
    assert "Layers left out, as their R² is not above 0: 1 with a." in found.text
    none = gini_finding({"a": readings(CLOSE, -0.1), "b": readings(DISTANT, -0.1)}, {"a": SINGLE, "b": LSTM})
    assert (none.ours, none.verdict) == ("no number", "inconclusive")


def test_few_images_give_no_interval():
    found = gini_finding({"a": readings(CLOSE, images=10), "b": readings(DISTANT, images=10)}, {"a": SINGLE, "b": LSTM})
    assert "10 % with a, 60 % with b lies" in found.text
    assert "there are too few images for an interval" in found.text


@pytest.mark.parametrize("kinds", [(SINGLE, SINGLE), (LSTM, LSTM), ("shared", LSTM), ("none", SINGLE), (None, LSTM)])
def test_gini_cannot_tell_without_both_kinds_of_network(kinds):
    known = {name: kind for name, kind in zip("ab", kinds, strict=True) if kind}
    found = gini_finding({"a": NEAR, "b": FAR}, known)
    assert found.verdict == "inconclusive"
    assert "DIA-LSTM beside one" in found.reason


def test_gini_of_short_stages_has_no_number():
    found = gini_finding({"a": readings(CLOSE[:2])}, {"a": SINGLE})
    assert (found.ours, found.verdict) == ("no number", "inconclusive")
    assert found.reason == "it takes a layer from the fourth on with R² above 0"
    stage = replace(NEAR.vector.stages[0], num_images=0, left_out=9, numbers=None)
    broken = GiniReadings({"vector": replace(NEAR.vector, stages=(stage,))}, None)
    assert gini_finding({"a": broken}, {"a": SINGLE}).reason == "a has diverged"


def cost(name, baseline, ratio, interval, parameters=1000):
    seconds = np.array([1.0])
    shape = (1, 3, 8, 8)
    ratios = (np.array([ratio]), ratio, interval)
    return NetworkCost(
        name, baseline, parameters, parameters - 1000, 0, 2 * parameters, seconds, *ratios, shape, Provenance()
    )


@pytest.mark.parametrize(
    ("attention", "baseline", "device", "low", "high", "verdict"),
    [
        (LSTM, "cifar_resnet164", "cuda:0", 1.05, 1.10, "holds here"),
        (LSTM, "cifar_resnet164", "cuda:0", 1.13, 1.20, "does not hold here"),
        (LSTM, "cifar_resnet164", "cuda:0", 0.53, 2.60, "inconclusive"),
        ("DIA-LSTM (Light)", "cifar_resnet164", "cuda:0", 1.02, 1.10, "does not hold here"),
        (LSTM, "cifar_resnet164", "cpu", 1.05, 1.10, "inconclusive"),
        (LSTM, "cifar_resnet56", "cuda:0", 1.05, 1.10, "inconclusive"),
        (SINGLE, "cifar_resnet164", "cuda:0", 1.05, 1.10, "inconclusive"),
    ],
)
def test_cost_is_held_against_the_paper_only_for_its_network_on_a_gpu(attention, baseline, device, low, high, verdict):
    plain = cost(baseline, baseline, 1.0, (1.0, 1.0))
    result = CostResult((plain, cost("net", baseline, 1.08, (low, high), 1250)), device, 1, 0)
    (found,) = cost_findings(result, {"net": attention})
    assert found.verdict == verdict
    ratio = f"95 % interval {low:.2f} to {high:.2f}"
    assert found.ours == f"1.08 times the time ({ratio})"
    assert found.text == (
        f"net takes 1.08 times as long as {baseline} ({ratio}), with +250 parameters (+25.0 %) and +25.0 % FLOPs."
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
    nothing = cam_finding([maps("a", [ramp]), maps("b", [flat])], None)
    assert "cannot be compared: one of them is always empty" in nothing.text
    assert nothing.ours == "no number"
    assert "different sizes" in cam_finding([maps("a", [ramp]), maps("b", [ramp], (8, 8))], None).text


def checked(name, scores):
    """Maps that depend on the weights; `scores` are the combined ROAD scores."""
    rho = np.zeros((2, 1, len(scores)))
    randomization = RandomizationResult(("m",), (1.0,), rho, rho, None, 0)
    morf, lerf = np.zeros((len(scores), 2)), np.repeat(2 * np.array(scores)[:, None], 2, axis=1)
    return TrustChecks(name, randomization, RoadResult(morf, lerf, lerf[None], 0))


def test_only_maps_that_pass_are_said_to_pass():
    sure, unsure, worse = [0.2, 0.21, 0.19], [0.5, -0.4, 0.1], [-0.2, -0.21, -0.19]
    checks = [checked("a", sure), checked("b", unsure), checked("c", worse), checked("d", sure)]
    text = cam_finding([maps("a", [np.eye(2)])], TrustReport(1, tuple(checks))).text
    assert "The maps of a and d pass both checks." in text
    assert "For the maps of b the checks do not decide." in text
    assert "Do not rely on the maps of c: masking the highlighted pixels hurts no more" in text


def test_self_attention_is_not_held_against_the_papers_number():
    result = correlated(0.1)
    stages = tuple(replace(stage, kind="self-attention") for stage in result.stages)
    found = BesideUntrained(replace(result, stages=stages), None).finding()
    assert found.verdict == "inconclusive"
    assert "self-attention" in found.reason
