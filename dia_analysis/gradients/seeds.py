"""One network drawn from several seeds: medians and intervals over the seeds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dia_analysis.gradients.change import Span, Word, decades_text, word
from dia_analysis.statistics.seeds import LEAST, t_interval

if TYPE_CHECKING:
    from dia_analysis.gradients.results import NetworkGradients, PointGradients


@dataclass(frozen=True)
class StageOverSeeds:
    """|g| at one stage's output: medians over the seeds (of one seed its own), zeros and non-finite values of all."""

    stage: int
    mean: float | None
    mean_lowest: float | None
    mean_highest: float | None
    std: float | None
    median: float | None
    low: float | None
    high: float | None
    zeros: int
    nonfinite: int
    relative: float | None

    @classmethod
    def of(cls, points: Sequence["PointGradients"]) -> "StageOverSeeds":
        """The same stage of each seed's network."""
        found = [point.magnitudes for point in points]
        means = [m.mean for m in found if m.mean is not None]
        return cls(
            stage=points[0].stage,
            mean=_median(means),
            mean_lowest=min(means, default=None),
            mean_highest=max(means, default=None),
            std=_median(m.std for m in found),
            median=_median(m.quantile(0.5) for m in found),
            low=_median(m.quantile(0.05) for m in found),
            high=_median(m.quantile(0.95) for m in found),
            zeros=sum(m.zeros for m in found),
            nonfinite=sum(m.nonfinite for m in found),
            relative=_median(point.relative for point in points),
        )


@dataclass(frozen=True)
class OverSeeds:
    """The networks of one name (and epoch), each with weights from another seed; perhaps a single one."""

    networks: tuple["NetworkGradients", ...]

    @property
    def label(self) -> str:
        """The name, with the number of seeds if there are several."""
        count = len(self.networks)
        return self.networks[0].label + (f" ({count} seeds)" if count > 1 else "")

    @property
    def stages(self) -> tuple[StageOverSeeds, ...]:
        """Numbers per stage."""
        return tuple(StageOverSeeds.of(points) for points in zip(*(n.stages for n in self.networks), strict=True))

    @property
    def mean_changes(self) -> list[float]:
        """Decades that the mean |g| gains from the last stage back to the first, where there is such a number."""
        return self._changes(lambda network: network.change.mean)

    @property
    def median_changes(self) -> list[float]:
        """The same of the median |g|."""
        return self._changes(lambda network: network.change.median)

    @property
    def verdict(self) -> Word:
        """Of one network its own word; of several the one that the intervals over seeds allow, else `inconclusive`."""
        if len(self.networks) == 1:
            return self.networks[0].verdict
        if any(network.verdict == "is not finite" for network in self.networks):
            return "is not finite"
        mean, median = t_interval(self.mean_changes), t_interval(self.median_changes)
        if len(self.mean_changes) < len(self.networks) or (self.median_changes and median is None):
            return "inconclusive"
        return word(mean, median)

    def finding(self) -> str:
        """The verdict in a sentence."""
        if len(self.networks) == 1 or self.verdict == "is not finite" or not np.isfinite(self.mean_changes).any():
            return " ".join(dict.fromkeys(network.finding() for network in self.networks))
        outcome = (
            "what becomes of the gradient is inconclusive" if self.verdict == "inconclusive" else f"|g| {self.verdict}"
        )
        few = f" An interval takes {LEAST} seeds." if len(self.networks) < LEAST else ""
        return (
            f"{self.label}: {outcome}: from stage {self.stages[-1].stage} back to stage {self.stages[0].stage} its "
            f"mean changes by {_over_seeds(self.mean_changes)}, its median by {_over_seeds(self.median_changes)}.{few}"
        )

    def to_dict(self) -> dict[str, Any]:
        """One of `over_seeds` of the JSON document dia.gradients/1."""
        first = self.networks[0]
        return {
            "name": first.name,
            "epoch": first.epoch,
            "seeds": [network.weights_seed for network in self.networks],
            "stages": [
                {
                    "stage": stage.stage,
                    "mean_abs": stage.mean,
                    "mean_abs_range": [stage.mean_lowest, stage.mean_highest],
                    "std_abs": stage.std,
                    "median_abs": stage.median,
                }
                for stage in self.stages
            ],
            "decades": finite(_median(self.mean_changes)),
            "decades_interval": _listed(t_interval(self.mean_changes)),
            "decades_median": finite(_median(self.median_changes)),
            "decades_median_interval": _listed(t_interval(self.median_changes)),
            "verdict": self.verdict,
            "finding": self.finding(),
        }

    def _changes(self, of: "Callable[[NetworkGradients], float | None]") -> list[float]:
        return [change for network in self.networks if (change := of(network)) is not None]


def by_network(networks: Iterable["NetworkGradients"]) -> tuple[OverSeeds, ...]:
    """Networks of one name and epoch whose weights are from different seeds, put together, in order."""
    groups: dict[Any, dict[Any, NetworkGradients]] = {}
    for place, network in enumerate(networks):
        key = (network.label,) if network.weights_seed is not None else (network.label, place)
        groups.setdefault(key, {})[network.weights_seed] = network
    return tuple(OverSeeds(tuple(group.values())) for group in groups.values())


def finite(number: float | None) -> float | None:
    """The number, or None if it is none that JSON knows."""
    return number if number is not None and np.isfinite(number) else None


def _median(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return float(np.median(known)) if known else None


def _listed(span: Span | None) -> list[float | None] | None:
    return None if span is None else [finite(end) for end in span]


def _over_seeds(changes: list[float]) -> str:
    """The median over seeds with the interval, or with the seeds one by one where there is none."""
    middle, span = _median(changes), t_interval(changes)
    if middle is None:
        return "no number, as it is zero at both ends"
    if span is None:
        return f"{' and '.join(map(decades_text, changes))} decades"
    low, high = map(decades_text, span)
    return f"{decades_text(middle)} decades (median of the seeds; 95 % interval of their mean {low} to {high})"
