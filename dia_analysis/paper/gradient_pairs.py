"""Does DIA-LSTM make gradients larger? Networks beside their plain backbones, as in Fig. 13 of the paper."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dia_analysis.gradients.magnitudes import Magnitudes
from dia_analysis.gradients.results import GradientResult, NetworkGradients
from dia_analysis.paper.findings import HOLDS, Finding, Verdict
from dia_analysis.results.base import Result
from dia_analysis.results.words import quantity
from dia_analysis.statistics.seeds import LEAST, t_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PAPER = (
    "The paper (Fig. 13): without skip connections, DIA-LSTM increases mean and variance of |g| in ResNet56. Here, "
    "relative to the same backbone without attention from the same seed, stage by stage:"
)

CLAIM = (
    "without skip connections, DIA-LSTM increases mean and variance of |g| (Fig. 13: ResNet56; no number is printed)"
)


@dataclass(frozen=True)
class Ratio:
    """How many times larger something is with DIA-LSTM, for each seed; None where there is no such number."""

    values: tuple[float | None, ...]

    @property
    def known(self) -> list[float]:
        """Where there is a number."""
        return [value for value in self.values if value]

    @property
    def median(self) -> float | None:
        """The median over seeds."""
        return float(np.median(self.known)) if self.known else None

    @property
    def larger(self) -> int:
        """In how many seeds it is larger."""
        return sum(value > 1 for value in self.known)

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Student's interval of the ratio's logarithm over seeds; None of fewer than three, or if one has no number."""
        span = t_interval(np.log(self.known).tolist(), level) if len(self.known) == len(self.values) else None
        return None if span is None else (float(np.exp(span[0])), float(np.exp(span[1])))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "median": self.median,
            "interval": self.interval(),
            "larger": self.larger,
            "seeds": len(self.values),
            "values": list(self.values),
        }

    def __str__(self) -> str:
        if self.median is None:
            return "–"
        span = self.interval()
        if span is None:
            return ", ".join(f"{value:.3g}" for value in self.known)
        return f"{self.median:.3g} [{span[0]:.3g} to {span[1]:.3g}]"


@dataclass(frozen=True)
class Pair:
    """A network with DIA-LSTM and its plain backbone, both without or both with skip connections, seed by seed."""

    seeds: tuple[tuple[NetworkGradients, NetworkGradients], ...]

    @property
    def network(self) -> NetworkGradients:
        """The network with DIA-LSTM, from the first seed."""
        return self.seeds[0][0]

    @property
    def means(self) -> list[Ratio]:
        """How many times larger the mean absolute gradient is, by stage."""
        return self._ratios(lambda found: found.mean)

    @property
    def medians(self) -> list[Ratio]:
        """How many times larger its median is, by stage."""
        return self._ratios(lambda found: found.quantile(0.5))

    @property
    def variances(self) -> list[Ratio]:
        """How many times larger its variance is, by stage."""
        return self._ratios(lambda found: found.variance)

    @property
    def skip(self) -> bool:
        """Whether there are skip connections."""
        return bool(self.network.made_from["options"].get("skip", True))

    @property
    def verdict(self) -> Verdict:
        """Whether mean and variance are larger at every stage, for other seeds too.

        It holds if each 95 % interval lies above 1, and does not hold if one lies below 1 that is as much wider as
        looking at all of them demands (Bonferroni).
        """
        ratios = [*self.means, *self.variances]
        intervals = [ratio.interval() for ratio in ratios]
        if all(span is not None and span[0] > 1 for span in intervals):
            return HOLDS[True]
        wider = [ratio.interval(1 - 0.05 / len(ratios)) for ratio in ratios]
        return HOLDS[False] if any(span is not None and span[1] < 1 for span in wider) else "inconclusive"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ratios = {"mean_ratios": self.means, "median_ratios": self.medians, "variance_ratios": self.variances}
        return {
            "name": self.network.name,
            "plain": self.seeds[0][1].name,
            "epoch": self.network.epoch,
            "skip": self.skip,
            "seeds": [network.weights_seed for network, _ in self.seeds],
            **{name: [ratio.to_dict() for ratio in found] for name, found in ratios.items()},
            "verdict": self.verdict,
        }

    def line(self) -> str:
        """The same in a line."""
        kind = "with skip connections" if self.skip else "without skip connections"
        count = len(self.seeds)
        over = quantity(count, "seed")
        over += "; median [95 % interval of the geometric mean]" if count >= LEAST else ""
        sizes = {"mean": self.means, "median": self.medians, "variance": self.variances}
        listed = "; ".join(f"{name} x {', '.join(map(str, ratios))}" for name, ratios in sizes.items())
        larger = ", ".join(str(ratio.larger) for ratio in self.means)
        often = f"; the mean is larger in {larger} of {count}" if count > 1 else ""
        return f"  {self.network.label} ({kind}, {over}): {listed}{often}"

    def _ratios(self, of: Callable[[Magnitudes], float | None]) -> list[Ratio]:
        stages = zip(*(zip(a.stages, b.stages, strict=True) for a, b in self.seeds), strict=True)
        return [Ratio(tuple(_ratio(of(a.magnitudes), of(b.magnitudes)) for a, b in stage)) for stage in stages]


def pair_with_plain(result: GradientResult) -> list[Pair]:
    """Each network with DIA-LSTM whose plain backbone was measured too (`NetworkGradients.plain_from`), on the same
    data, after as many epochs and from the same seed.
    """
    known = {_key(network, network.made_from): network for network in result.networks}
    pairs: dict[Any, dict[int | None, tuple[NetworkGradients, NetworkGradients]]] = {}
    for network in result.networks:
        other = None if network.plain_from is None else known.get(_key(network, network.plain_from))
        if other is not None:
            made = (json.dumps(network.made_from, sort_keys=True), network.epoch, _fresh(network))
            pairs.setdefault(made, {})[network.weights_seed] = (network, other)
    return [Pair(tuple(pair.values())) for pair in pairs.values()]


@dataclass(frozen=True, repr=False)
class BesidePlain(Result):
    """The gradients of networks, and of those with DIA-LSTM beside those of their plain backbones."""

    file = "gradients"
    result: GradientResult

    @cached_property
    def pairs(self) -> list[Pair]:
        """The networks with DIA-LSTM with their plain backbones."""
        return pair_with_plain(self.result)

    def summary(self) -> str:
        """What was measured, the table, the findings, and what the paper says."""
        first = self.result.networks[0]
        head = f"{first.provenance.data}, {quantity(first.num_images, 'image')}"
        beside = ["", PAPER, *(pair.line() for pair in self.pairs)] if self.pairs else []
        return "\n".join([head, self.result.summary(), *beside])

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.gradients/1."""
        return {**self.result.to_dict(), "dia_lstm_beside_plain": [pair.to_dict() for pair in self.pairs]}

    def to_dataframe(self) -> "pd.DataFrame":
        """As `GradientResult.to_dataframe`."""
        return self.result.to_dataframe()

    def datasets(self) -> dict[str, xr.Dataset]:
        """As `GradientResult.datasets`."""
        return self.result.datasets()

    def about(self) -> Mapping[str, Any]:
        """Where each network comes from."""
        return self.result.about()

    def panels(self) -> "Sequence[Callable[[Axes], object]]":
        """The distributions at each stage's output."""
        return self.result.panels()

    def complete(self, axes: "Sequence[Axes]") -> None:
        """Their legend."""
        self.result.complete(axes)

    def finding(self) -> Finding:
        """What becomes of the gradient in each network, and whether DIA-LSTM makes it larger if that was measured."""
        groups = self.result.over_seeds
        text = " ".join(group.finding() for group in groups)
        known = [f"{np.median(group.mean_changes):+.2f}" for group in groups if group.mean_changes]
        ours = f"{', '.join(known)} decades" if known else "no number"
        pairs = [pair for pair in self.pairs if not pair.skip]
        if not pairs:
            reason = "it takes a network with DIA-LSTM beside its backbone, both without skip connections"
            return Finding(text, ours, CLAIM, "inconclusive", reason)
        text = "\n".join([text, *(f"{pair.line().strip()}." for pair in pairs)])
        return Finding(text, ours, CLAIM, *_verdict(pairs))


def _verdict(pairs: list[Pair]) -> tuple[Verdict, str]:
    """Of all pairs together, and the reason."""
    verdicts = {pair.verdict for pair in pairs}
    fewest = min(len(pair.seeds) for pair in pairs)
    when = "before training" if all(_fresh(pair.network) for pair in pairs) else "in these networks"
    if fewest < LEAST:
        count = "1 seed was" if fewest == 1 else f"{fewest} seeds were"
        return "inconclusive", f"{count} measured and an interval takes {LEAST}"
    if HOLDS[False] in verdicts:
        return HOLDS[False], f"{when} one is smaller at some stage, by intervals over {fewest} seeds"
    if verdicts == {HOLDS[True]}:
        return HOLDS[True], f"{when} both are larger at every stage, by intervals over {fewest} seeds"
    return "inconclusive", f"{when} not every interval over {fewest} seeds lies above 1, nor one clearly below"


def _key(network: NetworkGradients, made_from: Mapping[str, Any]) -> tuple[Any, ...]:
    return json.dumps(made_from, sort_keys=True), network.epoch, network.weights_seed, _fresh(network)


def _fresh(network: NetworkGradients) -> bool:
    return network.provenance.checkpoint_sha256 is None


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
