"""Does DIA-LSTM make gradients larger? Networks beside their plain backbones, as in Fig. 13 of the paper."""

from dataclasses import dataclass
from typing import Any

from dia_analysis import GradientResult, Magnitudes, NetworkGradients
from dia_analysis.findings import HOLDS, Finding
from dia_models import ModelSpec
from dia_models.models import without_attention

PAPER = (
    "The paper (Fig. 13): without skip connections, DIA-LSTM increases mean and variance of |g| in ResNet56. Here, "
    "relative to the same backbone without attention, stage by stage:"
)

CLAIM = (
    "without skip connections, DIA-LSTM increases mean and variance of |g| (Fig. 13: ResNet56; no number is printed)"
)


@dataclass(frozen=True)
class Pair:
    """A network with DIA-LSTM and its plain backbone, both without or both with skip connections."""

    network: NetworkGradients
    plain: NetworkGradients

    @property
    def mean_ratios(self) -> list[float | None]:
        """How many times larger the mean absolute gradient is, by stage."""
        return [_ratio(a.mean, b.mean) for a, b in self._stages()]

    @property
    def variance_ratios(self) -> list[float | None]:
        """How many times larger its variance is, by stage."""
        return [_ratio(a.variance, b.variance) for a, b in self._stages()]

    @property
    def larger_at(self) -> list[int]:
        """The stages where both are larger, counted from 1."""
        both = zip(self.mean_ratios, self.variance_ratios, strict=True)
        return [stage for stage, ratios in enumerate(both, 1) if all(r is not None and r > 1 for r in ratios)]

    @property
    def skip(self) -> bool:
        """Whether there are skip connections."""
        return bool(self.network.made_from["options"].get("skip", True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.network.name,
            "plain": self.plain.name,
            "epoch": self.network.epoch,
            "skip": self.skip,
            "mean_ratios": self.mean_ratios,
            "variance_ratios": self.variance_ratios,
            "larger_at_stages": self.larger_at,
        }

    def line(self) -> str:
        """The same in a line."""
        where = (
            f"both larger at stage {', '.join(map(str, self.larger_at))}" if self.larger_at else "both larger nowhere"
        )
        kind = "with skip connections" if self.skip else "without skip connections"
        ratios = f"mean x {_listed(self.mean_ratios)}; variance x {_listed(self.variance_ratios)}"
        return f"  {self.network.label} ({kind}): {ratios}: {where}"

    def _stages(self) -> list[tuple[Magnitudes, Magnitudes]]:
        stages = zip(self.network.stages, self.plain.stages, strict=False)
        return [(a.magnitudes, b.magnitudes) for a, b in stages]


def dia_lstm_beside_plain(result: GradientResult) -> list[Pair]:
    """Each network with DIA-LSTM whose plain backbone was measured too, on the same data after as many epochs."""
    plain = {(_spec(network).model_dump_json(), network.epoch): network for network in result.networks}
    pairs = []
    for network in result.networks:
        spec = _spec(network)
        other = plain.get((without_attention(spec).model_dump_json(), network.epoch))
        if "_dia_lstm" in spec.name and other is not None:
            pairs.append(Pair(network, other))
    return pairs


def finding(result: GradientResult) -> Finding:
    """What becomes of the gradient in each network, and whether DIA-LSTM makes it larger where that was measured."""
    text = " ".join(network.finding() for network in result.networks)
    known = [f"{network.decades:+.2f}" for network in result.networks if network.decades is not None]
    ours = f"{', '.join(known)} decades" if known else "no number"
    pairs = [pair for pair in dia_lstm_beside_plain(result) if not pair.skip]
    if not pairs:
        reason = "it takes a network with DIA-LSTM beside its backbone, both without skip connections"
        return Finding(text, ours, CLAIM, "inconclusive", reason)
    text = "\n".join([text, *(f"{pair.line().strip()}." for pair in pairs)])
    stages, larger = sum(len(pair.mean_ratios) for pair in pairs), sum(len(pair.larger_at) for pair in pairs)
    reason = f"both are larger at {larger} of {stages} stages" if larger < stages else ""
    return Finding(text, ours, CLAIM, HOLDS[larger == stages], reason)


def _spec(network: NetworkGradients) -> ModelSpec:
    return ModelSpec.model_validate(network.made_from)


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def _listed(ratios: list[float | None]) -> str:
    return ", ".join("–" if ratio is None else f"{ratio:.3g}" for ratio in ratios)
