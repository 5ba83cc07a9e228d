"""What did training do to the correlation of a network's layers? The network beside itself before training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from dia_analysis.correlation.results import UNFIT, CorrelationResult, StageCorrelation
from dia_analysis.correlation.similarity_names import READINGS
from dia_analysis.paper.figure2_readings import ReadingRow, read_figure2, readings_table
from dia_analysis.paper.findings import Finding
from dia_analysis.paper.numbers import MEAN_R
from dia_analysis.probes.alignment import NO_COMMON_MEANING
from dia_analysis.results.base import Result, by_name
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.words import quantity
from dia_analysis.statistics.intervals import NORMAL, wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PAPER = f"average r above {MEAN_R} (Fig. 2: SE and ECA; ResNet164 on CIFAR-100, ResNet50 on ImageNet)"
HARDLY = 0.05  # a difference in r, or in the share of r above 0.8, from which on we say that training changed it
ONE_RUN = "this is one run; it takes three or more, which differ in the seed, to hold a mean r against the paper's"
DIVERGED = "the network has diverged"
NO_LAYERS = "There is no defined correlation, so nothing can be said about shared attention."
NO_MEANING = (
    "r between these layers has no meaning, as their channels have no common order; CKA says how alike they depend on "
    "the image."
)


@dataclass(frozen=True)
class Training:
    """What shows that a network was trained: whether its training is `recorded`, or its weights were loaded from a
    file, and its answers on labeled images.

    Of `num_images` it got `correct` right. Without labels that it knows, `num_images` is 0.
    """

    recorded: bool
    correct: int
    num_images: int
    num_classes: int

    @property
    def accuracy(self) -> float | None:
        """The share that it got right."""
        return self.correct / self.num_images if self.num_images else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the accuracy (Wilson 1927)."""
        if not self.num_images:
            return None
        return wilson(self.correct / self.num_images, float(self.num_images), NORMAL)

    def doubt(self) -> str | None:
        """Why it is not known to be trained; None if it is."""
        if not self.recorded:
            return "no training of it is recorded, so it may hold random weights"
        if self.interval is None:
            return "these images have no labels that the network knows, so its accuracy cannot show that it was trained"
        low, high = self.interval
        if low > 1 / self.num_classes:
            return None
        return (
            f"its accuracy on these images, {self.accuracy:.1%} (95% interval {low:.1%} to {high:.1%}), "
            f"is not above chance, {1 / self.num_classes:.1%}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As the document dia.correlation/2 has it."""
        return {
            "recorded": self.recorded,
            "correct": self.correct,
            "images": self.num_images,
            "accuracy": self.accuracy,
            "accuracy_interval": None if self.interval is None else list(self.interval),
        }


@dataclass(frozen=True)
class Baseline:
    """The same network before training, on the same images. `weights` and `statistics` (of its batch norms,
    None if it has none) say in words which it has.

    `exact` says that the weights are those with which this network's own training began.
    """

    result: CorrelationResult
    weights: str
    statistics: str | None
    exact: bool

    @property
    def name(self) -> str:
        """What the weights are."""
        return "before training" if self.exact else "with random weights"

    def title(self) -> str:
        """A heading for its table."""
        statistics = f"; batch-norm statistics {self.statistics}" if self.statistics else ""
        return f"The same network {self.name} (weights: {self.weights}{statistics})"

    def to_dict(self) -> dict[str, Any]:
        """As the document dia.correlation/2 has it."""
        found = self.result.to_dict()
        return {
            "weights": self.weights,
            "exact": self.exact,
            "statistics": self.statistics,
            "mean_r": found["mean_r"],
            "stages": found["stages"],
        }


@dataclass(frozen=True, repr=False)
class BesideUntrained(Result):
    """What was measured on a network and, unless its maps came from a store, on the same network before training.

    `before` has the batch-norm statistics of that moment, `reestimated` those of the images (None without batch norms).
    """

    file = "correlation"
    trained: CorrelationResult
    before: Baseline | None = None
    reestimated: Baseline | None = None
    training: Training | None = None

    @property
    def untrained(self) -> CorrelationResult | None:
        """What was measured before training."""
        return self.before.result if self.before else None

    def results(self) -> dict[str, CorrelationResult]:
        """All that was measured, by names for a legend; what is not known to be trained has the network's name."""
        known = self.before is not None
        named = {"trained" if known else self.provenance.checkpoint or "this network": self.trained}
        if self.before:
            named[self.before.name] = self.before.result
        if self.reestimated:
            named["statistics re-estimated"] = self.reestimated.result
        return named

    def to_dict(self) -> dict[str, Any]:
        """The document dia.correlation/2, with the numbers before training, the accuracy and the paper's number."""
        return {
            **self.trained.to_dict(),
            "untrained": self.before and self.before.to_dict(),
            "untrained_reestimated": self.reestimated and self.reestimated.to_dict(),
            "training": self.training and self.training.to_dict(),
            "readings": [row.to_dict() for row in self.readings()],
            "paper_mean_r": MEAN_R,
        }

    def readings(self) -> list[ReadingRow]:
        """Fig. 2 in several readings, where what they need was measured."""
        measured = [stage.readings.similarities for stage in self.trained.stages if stage.readings]
        if not any(all(name in found for name in READINGS) for found in measured):
            return []
        others = [None if each is None else each.result for each in (self.before, self.reestimated)]
        return read_figure2(self.trained, *others)

    def summary(self) -> str:
        """The tables, with the network's accuracy, and the finding."""
        origin, images = self.provenance, quantity(self.trained.num_images, "image")
        head = f"{origin.checkpoint or 'a network'} on {images} of {origin.data or 'unnamed data'}"
        parts = [f"{head}: Pearson r between the attention maps of a stage's layers", self.trained.summary()]
        if self.training and (accuracy := self.training.accuracy) is not None:
            parts.append(f"It gets {accuracy:.1%} of these images right.")
        for baseline in filter(None, (self.before, self.reestimated)):
            parts += [baseline.title(), baseline.result.summary()]
        if rows := self.readings():
            parts.append(readings_table(rows))
        finding = self.finding()
        return "\n\n".join([*parts, f"{finding.text}\n{finding.comparison()}"])

    @property
    def provenance(self) -> Provenance:  # type: ignore[override]
        """Where the trained network's numbers come from."""
        return self.trained.provenance

    def to_dataframe(self) -> "pd.DataFrame":
        """The mean r by network (trained, before training, ...), stage, layer and other layer."""
        return by_name({name: result.to_dataframe() for name, result in self.results().items()}, "network")

    def datasets(self) -> dict[str, xr.Dataset]:
        """Those of the trained network, and with a prefix those of the others."""
        others = {"untrained": self.before, "reestimated": self.reestimated}
        before = {
            f"{prefix}-{name}": arrays
            for prefix, baseline in others.items()
            if baseline is not None
            for name, arrays in baseline.result.datasets().items()
        }
        return {**self.trained.datasets(), **before}

    def panels(self) -> "Sequence[Callable[[Axes], object]]":
        """The trained network's matrices."""
        return self.trained.panels()

    def complete(self, axes: "Sequence[Axes]") -> None:
        """Their color bar."""
        self.trained.complete(axes)

    @property
    def shared(self) -> bool:
        """Whether a module serves several layers."""
        return any(call for stage in self.trained.stages for _, call in stage.layers)

    def finding(self) -> Finding:
        """What came out, beside the paper's number: one run gives no verdict; the reason says what else is amiss."""
        r = self.trained.mean_r
        if r is None:
            return self._nothing()
        text = " ".join([self._mean(r), *self._parts(), *self._stages(), *_broken(self.trained)])
        return Finding(text, f"{r:z.2f}", PAPER, "inconclusive", self._reason())

    def _nothing(self) -> Finding:
        broken = _broken(self.trained)
        if broken:
            return Finding(broken[0], "no number", PAPER, "inconclusive", DIVERGED)
        several = [stage for stage in self.trained.stages if len(stage.layers) > 1]
        if several and not any(stage.has_r for stage in several):
            return Finding(NO_MEANING, "no number", PAPER, "inconclusive", NO_COMMON_MEANING)
        reason = "every pair has a constant map" if several else "it takes two layers in a stage"
        return Finding(NO_LAYERS, "no number", PAPER, "inconclusive", reason)

    def _reason(self) -> str:
        if _broken(self.trained):
            return DIVERGED
        if self.shared:
            return (
                "here one module serves several layers, which makes their maps alike before any training, and the "
                "number is about one module per layer"
            )
        if any(stage.kind in ("self-attention", "cross-covariance") for stage in self.trained.stages):
            return "here the maps are of self-attention, and the number is about modules that scale channels"
        if self.training is None:
            return "a capture store does not tell whether its network was trained"
        return self.training.doubt() or ONE_RUN

    def _mean(self, r: float) -> str:
        if self.before is None and self.training is not None:
            return f"Mean r is {r:z.2f}; the network before training is not given."
        if self.before is None:
            return (
                f"Mean r is {r:z.2f}. A store holds nothing from before training to compare with: correlation --ckpt "
                "tells what training did."
            )
        other = self.reestimated
        again = f" ({_number(other.result.mean_r)} with batch-norm statistics re-estimated)" if other else ""
        return f"Mean r is {r:z.2f}; {self.before.name} it is {_number(self.before.result.mean_r)}{again}."

    def _parts(self) -> list[str]:
        """How much of r is static, and how much of the maps, beside the network before training."""
        numbers = self.trained.numbers
        if not all(name in numbers for name in ("mean_r", "mean_r_other_image", "channel_share")):
            return []
        kept = f"Of r {numbers['mean_r'].value:z.2f}, {numbers['mean_r_other_image'].value:z.2f}"
        static = self._beside_static(numbers["channel_share"].value)
        return [
            f"{kept} remains when the second map is another image's. {static} of the maps' variance is static. This "
            "describes the maps; whether the network uses how they depend on the image, an ablation can tell."
        ]

    def _beside_static(self, share: float) -> str:
        known = self.before.result.numbers.get("channel_share") if self.before else None
        other = f" ({self.before.name} {known.value:.0%})" if self.before and known else ""
        return f"{share:.0%}{other}"

    def _stages(self) -> list[str]:
        """What is different in each stage from before training."""
        if self.before is None:
            return []
        others = self.reestimated.result.stages if self.reestimated else self.before.result.stages
        stages = zip(self.trained.stages, self.before.result.stages, others, strict=True)
        if not self.before.exact:
            return [_beside(*both) for *both, _ in stages if _has_numbers(*both)]
        return [_changed(*three) for three in stages if _has_numbers(*three)]


@dataclass(frozen=True)
class _Change:
    """What training did to one number."""

    before: str
    now: str
    verb: str

    @classmethod
    def of(cls, before: float, now: float, form: str) -> "_Change":
        verb = "rose" if now > before + HARDLY else "fell" if now < before - HARDLY else ""
        return cls(format(before, form), format(now, form), verb)

    def __str__(self) -> str:
        return f"{self.verb or 'hardly changed,'} from {self.before} to {self.now}"


def _has_numbers(*stages: StageCorrelation) -> bool:
    return all(stage.mean_r is not None and stage.share_above_0_8 is not None for stage in stages)


def _changed(now: StageCorrelation, before: StageCorrelation, reestimated: StageCorrelation) -> str:
    """What training did to a stage, and what it seems to have done beside the other statistics, if that differs."""
    mean, share = changes = _changes(before, now)
    if not (mean.verb or share.verb):
        text = f"Stage {now.stage} hardly changed: mean r {mean.before} to {mean.now}, above 0.8 "
        text += f"{share.before} to {share.now}"
    else:
        text = f"Stage {now.stage}: mean r {mean}, the share of r above 0.8 {share}"
    others = _changes(reestimated, now)
    if [change.verb for change in others] != [change.verb for change in changes]:
        text += f"; beside re-estimated batch-norm statistics, mean r {others[0]}, the share {others[1]}"
    return f"{text}."


def _changes(before: StageCorrelation, now: StageCorrelation) -> tuple[_Change, _Change]:
    (r, share), (r_now, share_now) = ((stage.mean_r or 0.0, stage.share_above_0_8 or 0.0) for stage in (before, now))
    return _Change.of(r, r_now, "z.2f"), _Change.of(share, share_now, ".0%")


def _beside(now: StageCorrelation, other: StageCorrelation) -> str:
    """A stage beside other random weights than those that its training began with, so not what training did."""
    mean, share = _changes(other, now)
    return (
        f"Stage {now.stage}: mean r {mean.now} (random weights {mean.before}), above 0.8 {share.now} ({share.before})."
    )


def _number(r: float | None) -> str:
    return "undefined" if r is None else f"{r:z.2f}"


def _broken(result: CorrelationResult) -> list[str]:
    """A sentence on the layers whose maps are never finite."""
    names = [
        module
        for stage in result.stages
        for (module, _), count in zip(stage.layers, stage.not_finite.tolist(), strict=True)
        if count == result.num_images
    ]
    if not names:
        return []
    which = f"layer {names[0]}" if len(names) == 1 else f"{len(names)} layers, the first of them {names[0]},"
    return [f"The attention maps of {which} are {UNFIT} on all images: this network has diverged."]
