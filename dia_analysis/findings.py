"""What came out of an analysis, in sentences computed from its numbers, beside what the paper says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from dia_analysis.agreement import AgreementResult
from dia_analysis.cam_result import GradCAMResult
from dia_analysis.cost import PAPER_RATIOS, CostResult, NetworkCost
from dia_analysis.gini import GiniResult
from dia_analysis.verdict import TrustChecks, warnings

Verdict = Literal["holds here", "does not hold here", "inconclusive"]
Attention = Literal["none", "self-attention", "one module per layer", "shared", "DIA-LSTM", "DIA-LSTM (Light)"]
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
    ", ".join(f"{ratio:.2f} times the time with {name}" for name, ratio in PAPER_RATIOS.items())
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


def gini_finding(results: Mapping[str, GiniResult], attention: Mapping[str, Attention]) -> Finding:
    """Does more of the importance lie beyond the two nearest layers with DIA-LSTM than with one module per layer?

    Shares are means over the stages that have one. `attention` says what each network has.
    """
    shares = {name: _mean([s.beyond_two_nearest().mean() for s in r.stages]) for name, r in results.items()}
    known = {name: share for name, share in shares.items() if share is not None}
    if not known:
        text = "No stage has a layer with a source beyond its two nearest, so nothing can be said about distant layers."
        return Finding(text, "no number", PAPER_GINI, "inconclusive", "it takes stages of four layers or more")
    listed = ", ".join(f"{100 * share:.0f} % with {name}" for name, share in known.items())
    flat = _mean([stage.beyond_if_flat() for name in known for stage in results[name].stages]) or 0.0
    text = (
        f"Of the importance for a layer, {listed} lies beyond the two nearest earlier layers; it would be "
        f"{100 * flat:.0f} % if all earlier layers counted alike. {_explained(results)}"
    )
    return Finding(text, listed, PAPER_GINI, *_more_with_lstm(known, attention))


def _explained(results: Mapping[str, GiniResult]) -> str:
    """How well the forests predict, without which importance means nothing."""
    means = {name: [r2 for s in r.stages if (r2 := s.mean_r2()) is not None] for name, r in results.items()}
    listed = ", ".join(f"{np.mean(r2):z.2f} with {name}" for name, r2 in means.items() if r2)
    return (
        f"The forests' R² on images held out is {listed}." if listed else "No images were held out to test the forests."
    )


def _more_with_lstm(shares: Mapping[str, float], attention: Mapping[str, Attention]) -> tuple[Verdict, str]:
    lstm = [share for name, share in shares.items() if attention[name].startswith("DIA-LSTM")]
    single = [share for name, share in shares.items() if attention[name] == "one module per layer"]
    if not lstm or not single:
        return "inconclusive", "it takes a network with DIA-LSTM beside one with one module per layer"
    return HOLDS[min(lstm) > max(single)], ""


def cam_finding(
    results: Sequence[GradCAMResult], checks: Sequence[TrustChecks] | None, agreements: Sequence[AgreementResult] = ()
) -> Finding:
    """Do networks look at the same places, and do their maps pass the checks? `checks` is None if there were none."""
    alike = [_alike(a, b) for a, b in combinations(results, 2)]
    empty = [
        f"{r.empty.sum()} of {len(r.images)} maps of {r.name} are zero everywhere." for r in results if r.empty.any()
    ]
    text = " ".join([*(sentence for sentence, _ in alike), *empty, *_trusted(checks, agreements)])
    numbers = ", ".join(f"{rho:.2f}" for _, rho in alike if rho is not None)
    ours = f"correlation of maps {numbers}" if numbers else "no number"
    reason = "it is about chest X-rays; dia-analyze regions measures where in them a network looks"
    return Finding(text, ours, PAPER_CAM, "inconclusive", reason)


def _alike(a: GradCAMResult, b: GradCAMResult) -> tuple[str, float | None]:
    """How the maps of two networks for the same images correlate, where both say something; mean over the images."""
    if a.size != b.size:
        return f"The maps of {a.name} and {b.name} have different sizes.", None
    pairs = zip(a.maps.reshape(len(a.images), -1), b.maps.reshape(len(b.images), -1), strict=True)
    rho = _mean([np.corrcoef(x, y)[0, 1] for x, y in pairs if np.ptp(x) and np.ptp(y)])
    if rho is None:
        return f"The maps of {a.name} and {b.name} cannot be compared: one of them is always empty.", None
    return f"The maps of {a.name} and {b.name} for the same image correlate at {rho:.2f} on average.", rho


def _trusted(checks: Sequence[TrustChecks] | None, agreements: Sequence[AgreementResult]) -> list[str]:
    if checks is None:
        return ["Whether the maps can be trusted was not checked here."]
    unfailed = {check.name: _passes(check) for check in checks if not check.failures()}
    passed, undecided = ([name for name, passes in unfailed.items() if passes is wanted] for wanted in (True, False))
    lines = [_as_sentence(line) for line in warnings(checks, agreements)]
    lines += [f"The maps of {' and '.join(passed)} pass both checks."] if passed else []
    return lines + ([f"For the maps of {' and '.join(undecided)} the checks do not decide."] if undecided else [])


def _passes(check: TrustChecks) -> bool:
    return bool(check.randomisation.depends_on_weights and check.road.better_than_random)


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
    return Finding(text, f"{ratio:.2f} times the time", PAPER_COST, *_as_cheap(network, result.device, attention))


def _as_cheap(network: NetworkCost, device: str, attention: Attention) -> tuple[Verdict, str]:
    if attention not in PAPER_RATIOS:
        return "inconclusive", "it is about DIA-LSTM"
    if "resnet164" not in str(network.baseline) or not device.startswith("cuda"):
        return "inconclusive", f"{network.baseline} on {device} was measured"
    assert network.interval is not None
    return HOLDS[network.interval[0] <= PAPER_RATIOS[attention]], ""


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None
