"""What folding gates into the layers beside them saves and costs: layers folded against accuracy, and what is less."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from dia_analysis.cost.measure import CostResult, NetworkCost
from dia_analysis.results.base import Concise, Result
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table
from dia_analysis.results.words import quantity
from dia_analysis.statistics.intervals import Estimate
from dia_analysis.statistics.paired import clopper_pearson, share_difference

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

BEFORE, AFTER, EVERY = "before", "folded", "every gate folded"
"""The networks whose cost is measured."""
ORDERS = ("chosen", "random")


@runtime_checkable
class FoldedLayer(Protocol):
    """What became of a layer: as `dia_models.fold_attention` says."""

    @property
    def stage(self) -> int: ...  # noqa: D102
    @property
    def number(self) -> int: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def call(self) -> int: ...  # noqa: D102
    @property
    def outcome(self) -> str: ...  # noqa: D102
    @property
    def into(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, repr=False)
class FoldingOrder(Concise):
    """An order in which layers are folded. Row k says of each image whether the network with k layers folded is right.

    `layers` are the layers as (stage, number), one for each row but the first; `accuracy` is that on the validation
    images, by which layers are chosen.
    """

    layers: tuple[tuple[int, int], ...]
    right: Bool[np.ndarray, "count image"]
    accuracy: Float[np.ndarray, "count"]


@dataclass(frozen=True, repr=False)
class FoldingResult(Result):
    """Gates of a network replaced by their means and folded into the layers beside them.

    `orders` are the chosen order and a random one, both to the last layer that can be folded, of which the first
    `chosen` were. `right` says of each of the images on which it is judged whether the network is right as it was, and
    folded: `judged_on` "test", or "validation" where there are no test images. `cost` holds the network before, folded,
    and with every gate folded that can be. `deviation` is the largest difference of a logit from the network with the
    means, divided by the largest logit.
    """

    file = "folding"
    name: str
    layers: tuple[FoldedLayer, ...]
    orders: tuple[FoldingOrder, FoldingOrder]
    chosen: int
    max_accuracy_drop: float
    right: Bool[np.ndarray, "two image"]
    judged_on: str
    num_images: tuple[int, int]
    deviation: float
    cost: CostResult | None
    provenance: Provenance

    @classmethod
    def of(
        cls,
        folding: Any,
        name: str,
        cost: CostResult | None = None,
        provenance: Provenance | None = None,
    ) -> "FoldingResult":
        """What `dia_models.fold_attention` gave, as a result; `cost` is that of the networks BEFORE, AFTER, EVERY."""
        tested = folding.test is not None
        return cls(
            name=name,
            layers=tuple(folding.fates),
            orders=(_order(folding, folding.greedy), _order(folding, folding.random)),
            chosen=folding.chosen,
            max_accuracy_drop=folding.max_accuracy_drop,
            right=_array([folding.test, folding.test_after] if tested else _chosen_on(folding)),
            judged_on="test" if tested else "validation",
            num_images=(folding.mean_images, len(folding.validation)),
            deviation=folding.deviation,
            cost=cost,
            provenance=provenance or Provenance(seed=folding.seed),
        )

    @property
    def change(self) -> Estimate:
        """The change of the accuracy over the same images, with its paired 95 % interval."""
        before, after = self.right.astype(float)
        return share_difference(after - before)

    @property
    def is_within(self) -> bool:
        """Whether test images show that the accuracy falls by no more than is allowed."""
        return self.judged_on == "test" and self.change.low >= -self.max_accuracy_drop

    @property
    def folded(self) -> int:
        """How many layers were folded."""
        return sum(layer.outcome in ("removed", "module runs") for layer in self.layers)

    def saved(self) -> dict[str, float | None]:
        """Which share of what the gates cost is saved, by parameters, FLOPs and time; None where they cost nothing."""
        if self.cost is None:
            return {}
        before, after, every = (_of_name(self.cost, name) for name in (BEFORE, AFTER, EVERY))
        values = {
            "parameters": [float(one.parameters) for one in (before, after, every)],
            "flops": [float(one.flops) for one in (before, after, every)],
            "latency": [one.latency_ms for one in (before, after, every)],
        }
        return {key: (a - b) / (a - c) if a > c else None for key, (a, b, c) in values.items()}

    def finding(self) -> str:
        """What the images show, in a sentence."""
        change, allowed = self.change, f"{100 * self.max_accuracy_drop:g} points"
        images = f"{self.right.shape[1]} {self.judged_on} images"
        ends = f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}] points on {images}"
        gates = f"Folding {self.folded} of {quantity(len(self.layers), 'gate')} changes the accuracy by {ends}"
        if self.judged_on != "test":
            return f"{gates}, on which they were chosen: other images are needed to judge it."
        if self.is_within:
            return f"{gates}: within the allowed drop of {allowed}."
        return f"{gates}: a drop within the allowed {allowed} is not shown with {images}."

    def saving(self) -> str:
        """What is saved at that, in a sentence; empty where it was not measured."""
        saved = self.saved()
        words = [f"{100 * share:.0f} % of their {key}" for key, share in saved.items() if share and key != "latency"]
        if not words or self.cost is None:
            return ""
        after = _of_name(self.cost, AFTER)
        ratio, ends = after.latency_ratio, after.interval
        time = "" if ratio is None or ends is None else f"; a pass takes {ratio:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"
        return f"It saves {' and '.join(words)}{time} of the time before.".replace("flops", "FLOPs")

    def summary(self) -> str:
        """What became of each layer, the accuracies, and what is saved."""
        before, after = (clopper_pearson(row.astype(float)) for row in self.right)
        means, validation = self.num_images
        accuracy = self.orders[0].accuracy
        lines = [
            f"{self.name}: means over {means} images; chosen on {validation} others, where the accuracy is "
            f"{100 * accuracy[0]:.1f} and {100 * accuracy[self.chosen]:.1f} % with the gates' means",
            text_table([("layer", "gate", "what became of it", ""), *map(_row, self.layers)], left=(0, 1, 2, 3)),
            f"{self.judged_on} images: accuracy {_percent(before)} before, {_percent(after)} folded; the outputs are "
            f"those with the means to {self.deviation:.0e} of the largest",
            self.finding(),
            *filter(None, [self.saving()]),
        ]
        return "\n".join([*lines, *([] if self.cost is None else ["", *_cost_lines(self.cost)])])

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.folding/1."""
        before, after = (clopper_pearson(row.astype(float)) for row in self.right)
        return {
            "schema": "dia.folding/1",
            **self.provenance.to_dict(),
            "name": self.name,
            "folded": self.folded,
            "max_accuracy_drop": self.max_accuracy_drop,
            "mean_images": self.num_images[0],
            "validation_images": self.num_images[1],
            "judged_on": self.judged_on,
            "images": self.right.shape[1],
            "accuracy": before.value,
            "accuracy_folded": after.value,
            "accuracy_change": self.change.value,
            "accuracy_change_interval": [self.change.low, self.change.high],
            "within_allowed_drop": self.is_within,
            "finding": self.finding(),
            "saved": self.saved(),
            "deviation": self.deviation,
            "layers": [
                {"stage": x.stage, "layer": x.number, "name": x.name, "call": x.call}
                | {"outcome": x.outcome, "into": x.into or None, "reason": x.reason or None}
                for x in self.layers
            ],
            "curve": {name: _curve(order) for name, order in zip(ORDERS, self.orders, strict=True)},
            "cost": None if self.cost is None else self.cost.to_dict(),
        }

    def datasets(self) -> dict[str, xr.Dataset]:
        """Accuracy by order and number of layers folded, and what each image was given."""
        right = np.stack([order.right for order in self.orders])
        return {
            self.file: xr.Dataset(
                {
                    "right": (("order", "folded", "image"), right),
                    "accuracy": (("order", "folded"), right.mean(2)),
                    "validation_accuracy": (("order", "folded"), np.stack([order.accuracy for order in self.orders])),
                },
                coords={"order": list(ORDERS), "folded": np.arange(right.shape[1])},
                attrs={"network": self.name, "chosen": self.chosen, "judged_on": self.judged_on},
            )
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """The curve in long form: a row for each order and number of layers folded."""
        rows = self.datasets()[self.file][["accuracy", "validation_accuracy"]].to_dataframe().reset_index()
        rows.insert(0, "network", self.name)
        return rows

    def panels(self) -> "list[Callable[[Axes], object]]":
        """Layers folded against accuracy."""
        return [self._draw]

    def _draw(self, ax: "Axes") -> None:
        from dia_analysis.results.style import COLORS

        untouched = 100 * float(self.orders[0].right[0].mean())
        for name, order, color in zip(ORDERS, self.orders, COLORS, strict=False):
            counts, heights = range(len(order.right)), 100 * order.right.mean(1)
            ax.plot(counts, heights, "o-" if name == "chosen" else "s--", ms=2.5, color=color, label=f"{name} order")
        before, *others = self.orders[0].right.astype(float)
        changes = [share_difference(row - before) for row in others]
        low, high = ([untouched, *(untouched + 100 * end for end in ends)] for ends in _ends(changes))
        ax.fill_between(range(len(low)), low, high, color=COLORS[0], alpha=0.15, lw=0, label="95 % of the change")
        ax.axhline(untouched - 100 * self.max_accuracy_drop, color="0.4", lw=0.8, ls=":", label="allowed drop")
        ax.axvline(self.chosen, color="0.6", lw=0.8, label="folded")
        ax.set(xlabel="Layers folded", ylabel=f"Accuracy on {self.judged_on} images (%)", title=self.name)
        ax.locator_params(axis="x", integer=True)
        ax.legend(loc="lower left", fontsize=5)


def _ends(changes: Sequence[Estimate]) -> tuple[list[float], list[float]]:
    return [change.low for change in changes], [change.high for change in changes]


def _order(folding: Any, steps: Sequence[Any]) -> FoldingOrder:
    first = folding.validation if folding.test is None else folding.test
    right = [first, *(step.validation if folding.test is None else step.test for step in steps)]
    accuracy = [folding.validation, *(step.validation for step in steps)]
    layers = tuple((step.stage, step.number) for step in steps)
    return FoldingOrder(layers, _array(right), np.array([float(each.double().mean()) for each in accuracy]))


def _chosen_on(folding: Any) -> list[Any]:
    after = folding.greedy[folding.chosen - 1].validation if folding.chosen else folding.validation
    return [folding.validation, after]


def _array(rows: Sequence[Any]) -> np.ndarray:
    return np.stack([row.numpy() for row in rows])


def _of_name(cost: CostResult, name: str) -> NetworkCost:
    return next(network for network in cost.networks if network.name == name)


def _cost_lines(cost: CostResult) -> list[str]:
    """A table of the three networks, and what a batch is."""
    heads = ("network", "parameters", "MFLOPs", "ms/batch", "time / before", "95 %")
    rows = [
        (
            one.name,
            f"{one.parameters:,}",
            f"{one.flops / 1e6:.1f}",
            f"{one.latency_ms:.1f}",
            "-" if one.latency_ratio is None else f"{one.latency_ratio:.3f}",
            "-" if one.interval is None else f"[{one.interval[0]:.3f}, {one.interval[1]:.3f}]",
        )
        for one in cost.networks
    ]
    return [text_table([heads, *rows], left=[0]), cost.summary().split("\n\n")[-1]]


def _curve(order: FoldingOrder) -> list[dict[str, Any]]:
    rows = zip([None, *order.layers], order.right.mean(1), order.accuracy, strict=True)
    return [
        {
            "folded": count,
            "layer": None if layer is None else list(layer),
            "accuracy": float(accuracy),
            "validation_accuracy": float(known),
        }
        for count, (layer, accuracy, known) in enumerate(rows)
    ]


def _row(layer: FoldedLayer) -> tuple[str, ...]:
    into = f"folded into {layer.into}" if layer.into else layer.reason
    return f"{layer.stage}.{layer.number}", f"{layer.name} #{layer.call}", layer.outcome, into


def _percent(found: Estimate) -> str:
    return f"{100 * found.value:.1f} %"
