"""What came out of an analysis, in sentences computed from its numbers, beside what the paper says."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from dia_analysis.cost.measure import CostResult, NetworkCost
from dia_analysis.explain.results import GradCAMResult
from dia_analysis.importance.halves import interval
from dia_analysis.importance.readings import GiniReadings
from dia_analysis.importance.results import GiniResult
from dia_analysis.paper.numbers import TIME_RATIOS
from dia_analysis.statistics.summary import mean
from dia_analysis.trust.checks import TrustReport

Verdict = Literal["holds here", "does not hold here", "inconclusive"]
Attention = Literal["none", "self-attention", "one module per layer", "shared", "DIA-LSTM", "DIA-LSTM (Light)"]
TOO_SHORT = "it takes a layer from the fourth on with R² above 0"
RUNS = 3  # trained networks of a kind, at least, for a verdict about training
HOLDS: Mapping[bool, Verdict] = {True: "holds here", False: "does not hold here"}

PAPER_GINI = (
    "with SE the importance lies in the previous one or two layers, with DIA-LSTM also in layers further back "
    "(Fig. 11: ResNet164 on CIFAR-100; no number is printed)"
)
PAPER_CAM = (
    "DIA-LSTM looks at the lungs, the network without attention at the spine (Fig. 9: ResNet50 on chest X-rays; no "
    "number is printed)"
)
PAPER_COST = (
    ", ".join(f"{ratio:.2f} times the time with {name}" for name, ratio in TIME_RATIOS.items())
    + " (section VI-B1: ResNet164 on a GPU)"
)


@dataclass(frozen=True)
class Finding:
    """What came out, in sentences; its number `ours` beside what the `paper` says; `reason` explains the verdict."""

    text: str
    ours: str
    paper: str
    verdict: Verdict
    reason: str = ""

    def comparison(self) -> str:
        """The verdict in a line."""
        return f"The paper: {self.paper}: {self.verdict}{f', as {self.reason}' if self.reason else ''}."


def gini_finding(
    results: Mapping[str, GiniReadings], attention: Mapping[str, Attention], unknown: Collection[str] = ()
) -> Finding:
    """Does more of the importance lie beyond the two nearest layers with DIA-LSTM than with one module per layer?

    By whole vectors, as means over the layers with R² above 0; intervals are over images, for these networks. The
    paper's claim is about training, so that its verdict takes three networks of each kind, none of them in `unknown`,
    those not known to be trained; it rests on the interval over networks. `attention` says what each network has.
    """
    known = _known_shares(results)
    if not known:
        return _no_distant_layer(results)
    vectors = {name: results[name].vector for name in known}
    groups = _groups(known, attention)
    about = [*_compared(known, groups, vectors), *_untrained(results, known), _explained(results)]
    text, verdict = " ".join([importance_beyond(results), *about]), _more_with_lstm(known, groups, unknown)
    return Finding(text, _shares_of(known, results), PAPER_GINI, *verdict)


def _no_distant_layer(results: Mapping[str, GiniReadings]) -> Finding:
    diverged = [name for name, readings in results.items() if readings.vector.diverged]
    has = "has" if len(diverged) == 1 else "have"
    reason = f"{' and '.join(diverged)} {has} diverged" if diverged else TOO_SHORT
    return Finding(importance_beyond(results), "no number", PAPER_GINI, "inconclusive", reason)


Shares = Mapping[tuple[int, int], tuple[float, np.ndarray]]
Groups = tuple[list[str], list[str]]


def importance_beyond(results: Mapping[str, GiniReadings]) -> str:
    """How much of the importance lies beyond the two nearest layers, by whole vectors, beside that of a flat row."""
    known = _known_shares(results)
    if not known:
        return (
            "No layer has a source beyond its two nearest and whole vectors that can be predicted (R² above 0), so "
            "nothing can be said about distant layers."
        )
    flat = mean([stage.beyond_if_flat() for name in known for stage in results[name].vector.stages]) or 0.0
    return (
        f"By whole vectors, of the importance for a layer {_shares_of(known, results)} lies beyond the two nearest "
        f"earlier layers (95 % interval over images); it would be {100 * flat:.0f} % if all earlier layers "
        "counted alike."
    )


def _known_shares(results: Mapping[str, GiniReadings]) -> dict[str, Shares]:
    layers = {name: _by_layer(readings.vector) for name, readings in results.items()}
    return {name: shares for name, shares in layers.items() if shares}


def _shares_of(known: Mapping[str, Shares], results: Mapping[str, GiniReadings]) -> str:
    return ", ".join(f"{_points(shares, results[name].vector)} with {name}" for name, shares in known.items())


def _by_layer(result: GiniResult) -> Shares:
    """By stage and target, the share beyond the two nearest layers, and that on the halves of the images."""
    return {
        (stage.stage, int(target)): (float(stage.far()[target]), stage.far_halves()[..., target])
        for stage in result.stages
        for target in np.flatnonzero(np.isfinite(stage.far()))
    }


def _points(shares: Shares, result: GiniResult) -> str:
    """The mean share in percent, with its interval."""
    values, by_half = zip(*shares.values(), strict=True)
    low, high = interval(np.mean(values), np.mean(by_half, axis=0), _images([result]))
    ends = "" if np.isnan(low) else f" [{100 * low.clip(0, 1):.0f}, {100 * high.clip(0, 1):.0f}]"
    return f"{100 * np.mean(values):.0f} %{ends}"


def _images(results: Iterable[GiniResult]) -> int:
    return min(stage.num_images for result in results for stage in result.stages)


def _groups(known: Mapping[str, Shares], attention: Mapping[str, Attention]) -> Groups:
    """The networks with DIA-LSTM, and those with one module per layer."""
    lstm = [name for name in known if attention.get(name, "").startswith("DIA-LSTM")]
    return lstm, [name for name in known if attention.get(name) == "one module per layer"]


def _common(known: Mapping[str, Shares], groups: Groups) -> list[tuple[int, int]]:
    """The layers that can be predicted in all networks of both groups."""
    first, *others = (set(known[name]) for group in groups for name in group)
    return sorted(first.intersection(*others))


def _compared(known: Mapping[str, Shares], groups: Groups, results: Mapping[str, GiniResult]) -> list[str]:
    """How far the groups differ on the same layers, for these networks on other images."""
    if not all(groups):
        return []
    if not (layers := _common(known, groups)):
        return ["No layer can be predicted in all of them, so they cannot be compared."]
    sides = [[known[name][layer] for name in group for layer in layers] for group in groups]
    value = float(np.mean([share for share, _ in sides[0]]) - np.mean([share for share, _ in sides[1]]))
    halves = np.mean([half for _, half in sides[0]], axis=0) - np.mean([half for _, half in sides[1]], axis=0)
    low, high = interval(value, halves, _images(results[name] for group in groups for name in group))
    count = "On the 1 layer" if len(layers) == 1 else f"On the {len(layers)} layers"
    text = f"{count} that can be predicted in all, DIA-LSTM's share minus the other's is {100 * value:+.0f} points"
    if np.isnan(low):
        return [f"{text}; there are too few images for an interval."]
    said = "more" if low > 0 else "less" if high < 0 else "no difference shown"
    return [f"{text} [{100 * low:+.0f}, {100 * high:+.0f}]: {said}, for these networks on other images."]


def _untrained(results: Mapping[str, GiniReadings], known: Mapping[str, Shares]) -> list[str]:
    """What the share is without training."""
    shares = []
    for name in known:
        readings = results[name]
        if readings.untrained is not None:
            values = [share for share, _ in _by_layer(readings.untrained["vector"]).values()]
            shares.append(f"{100 * np.mean(values):.0f} % with {name}" if values else f"not defined with {name}")
    return [f"Untrained it is {', '.join(shares)}."] if shares else []


def _explained(results: Mapping[str, GiniReadings]) -> str:
    """How well the forests predict, without which importance means nothing, and what was left out for that."""
    stages = {name: readings.vector.stages for name, readings in results.items()}
    means = {name: [r2 for s in some if (r2 := s.mean_r2()) is not None] for name, some in stages.items()}
    listed = ", ".join(f"{np.mean(r2):z.2f} with {name}" for name, r2 in means.items() if r2)
    if not listed:
        return "No images were held out to test the forests."
    left = ", ".join(
        f"{n} with {name}" for name, some in stages.items() if (n := sum(len(s.unpredicted()) for s in some))
    )
    without = f" Layers left out, as their R² is not above 0: {left}." if left else ""
    return f"The forests' R² on images held out is {listed}.{without}"


def _more_with_lstm(known: Mapping[str, Shares], groups: Groups, unknown: Collection[str]) -> tuple[Verdict, str]:
    if not all(groups):
        return "inconclusive", "it takes a checkpoint with DIA-LSTM beside one with one module per layer"
    if some := [name for group in groups for name in group if name in unknown]:
        return "inconclusive", f"{' and '.join(some)} {'is' if len(some) == 1 else 'are'} not known to be trained"
    if min(map(len, groups)) < RUNS:
        return "inconclusive", f"another run may come out otherwise: it takes {RUNS} trained networks of each kind"
    if not (layers := _common(known, groups)):
        return "inconclusive", "no layer can be predicted in all networks"
    from dia_analysis.statistics.significance import difference

    lstm, single = ([float(np.mean([known[name][k][0] for k in layers])) for name in group] for group in groups)
    found = difference(lstm, single)
    over = (
        f"the 95 % interval of the difference over networks is {100 * found.low:+.0f} to {100 * found.high:+.0f} points"
    )
    if np.isnan(found.low):
        return "inconclusive", "the networks of each kind do not differ"
    return ("inconclusive" if found.low <= 0 <= found.high else HOLDS[found.low > 0]), over


def cam_finding(results: Sequence[GradCAMResult], trust: TrustReport | None) -> Finding:
    """Do networks look at the same places, and do their maps pass the checks? `trust` is None if there were none."""
    said = [alike(a, b) for a, b in combinations(results, 2)]
    empty = [
        f"{r.empty.sum()} of {len(r.image_names)} maps of {r.name} are zero everywhere."
        for r in results
        if r.empty.any()
    ]
    text = " ".join([*(sentence for sentence, _ in said), *empty, *_trusted(trust)])
    numbers = ", ".join(f"{rho:.2f}" for _, rho in said if rho is not None)
    ours = f"correlation of maps {numbers}" if numbers else "no number"
    reason = "it is about chest X-rays; dia-analyze regions measures where in them a network looks"
    return Finding(text, ours, PAPER_CAM, "inconclusive", reason)


def alike(a: GradCAMResult, b: GradCAMResult) -> tuple[str, float | None]:
    """How the maps of two networks for the same images correlate, where both say something; mean over the images."""
    if a.size != b.size:
        return f"The maps of {a.name} and {b.name} have different sizes.", None
    pairs = zip(a.maps.reshape(len(a.image_names), -1), b.maps.reshape(len(b.image_names), -1), strict=True)
    rho = mean([np.corrcoef(x, y)[0, 1] for x, y in pairs if np.ptp(x) and np.ptp(y)])
    if rho is None:
        return f"The maps of {a.name} and {b.name} cannot be compared: one of them is always empty.", None
    return f"The maps of {a.name} and {b.name} for the same image correlate at {rho:.2f} on average.", rho


def _trusted(trust: TrustReport | None) -> list[str]:
    if trust is None:
        return ["Whether the maps can be trusted was not checked here."]
    unfailed = {check.name: check.passed for check in trust.checks if not check.failures()}
    passed, undecided = ([name for name, passes in unfailed.items() if passes is wanted] for wanted in (True, False))
    lines = [_as_sentence(line) for line in trust.warnings()]
    lines += [f"The maps of {' and '.join(passed)} pass both checks."] if passed else []
    return lines + ([f"For the maps of {' and '.join(undecided)} the checks do not decide."] if undecided else [])


def _as_sentence(warning: str) -> str:
    text = warning.removeprefix("warning: ")
    return text[0].upper() + text[1:]


def cost_findings(result: CostResult, attention: Mapping[str, Attention]) -> list[Finding]:
    """For each network with a backbone to compare with: what its attention costs, beside the paper's ratio."""
    compared = [n for n in result.networks if n.baseline not in (None, n.name) and n.name in attention]
    return [_cost_finding(network, result, attention[network.name]) for network in compared]


def _cost_finding(network: NetworkCost, result: CostResult, attention: Attention) -> Finding:
    assert network.latency_ratio is not None
    assert network.interval is not None
    baseline = next(other for other in result.networks if other.name == network.baseline)
    ratio, (low, high) = network.latency_ratio, network.interval
    text = (
        f"{network.name} takes {ratio:.2f} times as long as {baseline.name} (95 % interval {low:.2f} to {high:.2f}), "
        f"with {network.attention_parameters:+,} parameters "
        f"({100 * (network.parameters / baseline.parameters - 1):+.1f} %) and "
        f"{100 * (network.flops / baseline.flops - 1):+.1f} % FLOPs."
    )
    ours = f"{ratio:.2f} times the time (95 % interval {low:.2f} to {high:.2f})"
    return Finding(text, ours, PAPER_COST, *_as_cheap(network, result.device, attention))


def _as_cheap(network: NetworkCost, device: str, attention: Attention) -> tuple[Verdict, str]:
    """Does it take no more than the paper's ratio, by the whole interval?"""
    if attention not in TIME_RATIOS:
        return "inconclusive", "it is about DIA-LSTM"
    if "resnet164" not in str(network.baseline) or not device.startswith("cuda"):
        return "inconclusive", f"{network.baseline} on {device} was measured"
    assert network.interval is not None
    (low, high), paper = network.interval, TIME_RATIOS[attention]
    if low <= paper < high:
        return "inconclusive", f"the interval reaches from below to above {paper:.2f}"
    return HOLDS[high <= paper], ""
