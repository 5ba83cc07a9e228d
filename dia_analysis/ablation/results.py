"""What `measure_ablation` gives: how networks answer with their maps replaced, and what that says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dia_analysis.ablation.findings import findings
from dia_analysis.ablation.outcomes import Scores
from dia_analysis.ablation.replacements import REPLACEMENTS
from dia_analysis.ablation.running import Layer
from dia_analysis.ablation.swap_picture import draw_swaps, has_scores
from dia_analysis.ablation.swapping import MATCHED, OTHER_IMAGE, PERMUTED, RAW
from dia_analysis.ablation.targets import Effect
from dia_analysis.results.base import Concise, Result
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table
from dia_analysis.statistics.intervals import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HEADS = ("replaced", "by", "effect", "map change", "accuracy", "change", "95 %", "loss", "changed", "95 %", "KL")
NUMBERS = ("accuracy", "loss", "accuracy_change", "loss_change", "changed", "kl")
UNLIKE = (
    "The replacements move the maps by unlike amounts (map change: root mean square of the change / of the map), so "
    "their accuracies are not comparable as they stand."
)


SWAP = (
    "Layer swap, accuracy in %: a layer's map replaced by another layer's of the same image, as it is (raw) or shifted "
    "and scaled to this layer's mean and standard deviation (matched), or by that of another image. The floors are its "
    "own map with channels permuted, one constant, its mean. Score: 0 as with channels permuted, 1 as untouched."
)
SWAP_HEADS = ("stage", "layer", "by", "permuted", "constant", "mean", "raw", "matched", "other image", "score", "95 %")


@dataclass(frozen=True, repr=False)
class Ablation(Concise):
    """Some layers' maps replaced in one way. `layers` count all layers in forward order from 0.

    `stage` is None where the layers are those of all stages. `map_change` is the root mean square of the change of the
    maps divided by that of the maps, None if all are zero; `draws` is how often donors were drawn, from `seed`.
    `by_layer` is the number of the layer of the stage whose map was taken, None if none was; `swap_score` says how far
    a matched one closes the gap from the own map with channels permuted (0) to the own map (1).
    """

    stage: int | None
    layers: tuple[int, ...]
    replaced_by: str
    effect: Effect
    scores: Scores
    map_change: float | None
    draws: int
    seed: int
    by_layer: int | None = None
    swap_score: Estimate | None = None


@dataclass(frozen=True, repr=False)
class NetworkAblation(Concise):
    """One network. `accuracy` and `loss` are the untouched network's, NaN without labels.

    `most_frequent` is the accuracy of always answering the most frequent class, None without labels.
    `recalibrated` says that batch norms had new statistics for each replacement, `state` that what reads a map later
    saw the new one, too.
    """

    name: str
    num_images: int
    fit_images: int
    num_classes: int
    accuracy: Estimate
    loss: Estimate
    most_frequent: float | None
    layers: tuple[Layer, ...]
    ablations: tuple[Ablation, ...]
    swaps: tuple[Ablation, ...]
    recalibrated: bool
    notes: tuple[str, ...]
    state: bool = False

    def what(self, ablation: Ablation) -> str:
        """Which layers' maps were replaced, in words."""
        if ablation.stage is None:
            return "all"
        if len(ablation.layers) == 1 and self.size_of(ablation.stage) > 1:
            return f"stage {ablation.stage}, layer {self.layers[ablation.layers[0]].number}"
        return f"stage {ablation.stage}"

    def size_of(self, stage: int) -> int:
        """How many layers a stage has."""
        return sum(layer.stage == stage for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """The network as the JSON schema dia.ablation/1 has it."""
        return {
            "name": self.name,
            "accuracy": _number(self.accuracy),
            "accuracy_interval": _interval(self.accuracy),
            "loss": _number(self.loss),
            "images": self.num_images,
            "fit_images": self.fit_images,
            "classes": self.num_classes,
            "most_frequent_class": self.most_frequent,
            "recalibrated": self.recalibrated,
            "state": self.state,
            "points": [
                {"stage": x.stage, "layer": x.number, "module": x.name, "call": x.call, "kind": x.kind}
                for x in self.layers
            ],
            "ablations": [self._ablation(each) for each in (*self.ablations, *self.swaps)],
            "findings": findings(self),
            "notes": list(self.notes),
        }

    def _ablation(self, one: Ablation) -> dict[str, Any]:
        scores = {name: getattr(one.scores, name) for name in NUMBERS}
        return {
            "stage": one.stage,
            "layers": [i + 1 if one.stage is None else self.layers[i].number for i in one.layers],
            "replaced_by": one.replaced_by,
            "by_layer": one.by_layer,
            "effect": one.effect,
            "map_change": one.map_change,
            **{name: _number(value) for name, value in scores.items()},
            **{f"{name}_interval": _interval(value) for name, value in scores.items()},
            "not_finite": one.scores.not_finite,
            **({} if one.swap_score is None else _scored(one.swap_score)),
            "draws": one.draws,
            "seed": one.seed,
        }

    def rows(self) -> list[tuple[str, ...]]:
        """A row of the table for each ablation."""
        return [(self.what(one), one.replaced_by, one.effect, *_cells(one)) for one in self.ablations]

    def text(self) -> str:
        """A table, and what it says."""
        accuracy = (
            "" if np.isnan(self.accuracy.value) else f", accuracy {_percent(self.accuracy)}, loss {_plain(self.loss)}"
        )
        norms = ", batch norms recalibrated" if self.recalibrated else ""
        norms += ", states replaced too" if self.state else ""
        head = f"{self.name}: {self.num_images} images, means over {self.fit_images} others{norms}{accuracy}"
        table = text_table([HEADS, *self.rows()], left=(0, 1, 2))
        unlike = [UNLIKE] if len({one.replaced_by for one in self.ablations}) > 1 else []
        return "\n".join([head, table, *findings(self), *unlike, *self._swap_lines(), *_not_finite(self), *self.notes])

    def _swap_lines(self) -> list[str]:
        """A table with a row for each ordered pair of layers."""
        if not self.swaps:
            return []
        found = {(one.layers[0], one.replaced_by, one.by_layer): one for one in self.swaps}
        rows = []
        for one in self.swaps:
            if one.replaced_by == MATCHED:
                floors = [found[one.layers[0], name, None] for name in (PERMUTED, "constant", "mean")]
                ways = [found[one.layers[0], name, one.by_layer] for name in (RAW, MATCHED, OTHER_IMAGE)]
                rows.append(self._swap_row(one, [*floors, *ways]))
        return [SWAP, text_table([SWAP_HEADS, *rows])]

    def _swap_row(self, one: Ablation, ways: Sequence[Ablation]) -> tuple[str, ...]:
        layer, score = self.layers[one.layers[0]], one.swap_score
        defined = score is not None and not np.isnan(score.value)
        ends = f"[{score.low:.2f}, {score.high:.2f}]" if score is not None and defined else "undefined"
        value = f"{score.value:.2f}" if score is not None and defined else "-"
        accuracies = (_percent(way.scores.accuracy) for way in ways)
        return (str(layer.stage), str(layer.number), str(one.by_layer), *accuracies, value, ends)

    def draw(self, ax: "Axes") -> None:
        """The accuracy (without labels the share of predictions that stay) by replacement, a line for each target."""
        from dia_analysis.results.style import COLORS

        labelled = not np.isnan(self.accuracy.value)
        kinds = [name for name in REPLACEMENTS if any(one.replaced_by == name for one in self.ablations)]
        shown = [one for one in self.ablations if one.effect == "total"] or list(self.ablations)
        series = [(what, list(some)) for what, some in groupby(shown, key=self.what)]
        for number, (what, some) in enumerate(series):
            shift = 0.5 * ((number + 0.5) / len(series) - 0.5)
            places = [kinds.index(one.replaced_by) + shift for one in some]
            values = [one.scores.accuracy if labelled else _kept(one.scores.changed) for one in some]
            bars = [[100 * (v.value - v.low) for v in values], [100 * (v.high - v.value) for v in values]]
            color, marker = COLORS[number % len(COLORS)], "osD^vP*"[number // len(COLORS) % 7]
            heights = [100 * v.value for v in values]
            ax.errorbar(places, heights, np.maximum(bars, 0), fmt=marker, ms=3, lw=0.8, color=color, label=what)
        if labelled:
            ax.axhline(100 * self.accuracy.value, color="0.4", lw=0.8, ls="--", label="untouched")
        ax.set_xticks(range(len(kinds)), kinds, rotation=30, ha="right")
        ax.set(ylim=(0, 102), title=self.name, xlabel="Maps replaced by")
        ax.set_ylabel("Accuracy (%)" if labelled else "Predictions that stay (%)")
        if len(series) <= len(COLORS):
            ax.legend(loc="lower left", fontsize=5)

    def to_xarray(self) -> xr.Dataset:
        """The numbers by ablation, with the ends of their intervals (end: low, high)."""
        scores = {name: [getattr(one.scores, name) for one in self.ablations] for name in NUMBERS}
        ends = {f"{name}_interval": [(each.low, each.high) for each in some] for name, some in scores.items()}
        change = [np.nan if one.map_change is None else one.map_change for one in self.ablations]
        return xr.Dataset(
            {name: ("ablation", [each.value for each in some]) for name, some in scores.items()}
            | {name: (("ablation", "end"), values) for name, values in ends.items()}
            | {"map_change": ("ablation", change)},
            coords={
                "replaced": ("ablation", [self.what(one) for one in self.ablations]),
                "by": ("ablation", [one.replaced_by for one in self.ablations]),
                "effect": ("ablation", [one.effect for one in self.ablations]),
                "end": ["low", "high"],
            },
            attrs={"network": self.name},
        )


@dataclass(frozen=True, repr=False)
class AblationResult(Result):
    """What `measure_ablation` found, by network."""

    file = "ablation"
    networks: tuple[NetworkAblation, ...]
    provenance: Provenance

    @classmethod
    def beside(cls, results: "Sequence[AblationResult]") -> "AblationResult":
        """The networks of several results side by side, with the provenance of the first."""
        return cls(tuple(network for result in results for network in result.networks), results[0].provenance)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.ablation/1."""
        return {
            "schema": "dia.ablation/1",
            **self.provenance.to_dict(),
            "networks": [network.to_dict() for network in self.networks],
        }

    def summary(self) -> str:
        """For each network a table, and what it says."""
        return "\n\n".join(network.text() for network in self.networks)

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each ablation of each network."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"network": network.name, **{k: v for k, v in row.items() if not isinstance(v, list)}}
                for network in self.networks
                for row in network.to_dict()["ablations"]
            ]
        )

    def datasets(self) -> dict[str, xr.Dataset]:
        """The numbers, by network where there are several."""
        if len(self.networks) == 1:
            return {self.file: self.networks[0].to_xarray()}
        return {f"{self.file}{number}": network.to_xarray() for number, network in enumerate(self.networks, 1)}

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The accuracy by replacement for each network, then the layer swap of those that have it."""
        swapped = [partial(draw_swaps, network) for network in self.networks if has_scores(network)]
        return [*(partial(NetworkAblation.draw, network) for network in self.networks), *swapped]


def _number(estimate: Estimate) -> float | None:
    return None if np.isnan(estimate.value) else float(estimate.value)


def _interval(estimate: Estimate) -> list[float] | None:
    return None if np.isnan(estimate.low) else [float(estimate.low), float(estimate.high)]


def _scored(score: Estimate) -> dict[str, Any]:
    return {"swap_score": _number(score), "swap_score_interval": _interval(score)}


def _kept(changed: Estimate) -> Estimate:
    return Estimate(1 - changed.value, 1 - changed.high, 1 - changed.low, changed.images)


def _percent(estimate: Estimate) -> str:
    return "-" if np.isnan(estimate.value) else f"{100 * estimate.value:.1f}"


def _points(estimate: Estimate) -> str:
    return "-" if np.isnan(estimate.value) else f"{100 * estimate.value:+.1f}"


def _ends(estimate: Estimate, sign: str = "") -> str:
    if np.isnan(estimate.low):
        return "-"
    return f"[{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"


def _plain(estimate: Estimate) -> str:
    return "-" if np.isnan(estimate.value) else f"{estimate.value:.3f}"


def _cells(one: Ablation) -> tuple[str, ...]:
    scores = one.scores
    return (
        "-" if one.map_change is None else f"{one.map_change:.3f}",
        _percent(scores.accuracy),
        _points(scores.accuracy_change),
        _ends(scores.accuracy_change, "+"),
        _plain(scores.loss),
        _percent(scores.changed),
        _ends(scores.changed),
        _plain(scores.kl),
    )


def _not_finite(network: NetworkAblation) -> list[str]:
    return [
        f"{network.what(one)} replaced by {one.replaced_by}: {one.scores.not_finite} images have an answer that is not "
        "finite; they count as wrong and changed."
        for one in network.ablations
        if one.scores.not_finite
    ]
