"""What `measure_gradients` gives: numbers per stage and block of each network, and what they say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dia_analysis.gradients.change import Change, Word, decades, decades_text, word
from dia_analysis.gradients.magnitudes import LOWEST, PER_DECADE, Magnitudes
from dia_analysis.gradients.seeds import OverSeeds, StageOverSeeds, by_network, finite
from dia_analysis.probes.modes import Mode
from dia_analysis.results.base import Concise, Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table
from dia_analysis.results.words import quantity

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
DRAWN_PER_DECADE = 10
MOST_DRAWN = 7  # networks: so many have a color of their own
HEADS = ("network", "stage", "mean |g|", "median", "std", "5 %", "95 %", "zero", "not finite", "|g| x rms")


@dataclass(frozen=True, repr=False)
class PointGradients(Concise):
    """The absolute gradients at one output: a stage's, or a block's if `block` is a number (both from 1).

    `shape` is the output's without the batch; `output_rms` the root mean square of the output itself.
    """

    stage: int
    block: int | None
    module: str
    call: int
    shape: tuple[int, ...]
    output_rms: float
    magnitudes: Magnitudes

    @property
    def relative(self) -> float | None:
        """Mean absolute gradient times the root mean square of the output: what a rescaled output leaves as it is."""
        mean = self.magnitudes.mean
        return None if mean is None else mean * self.output_rms

    def to_dict(self) -> dict[str, Any]:
        """The stage or block as the JSON schema dia.gradients/1 has it."""
        found = self.magnitudes
        counts, edges = found.binned(DRAWN_PER_DECADE)
        return {
            "stage": self.stage,
            **({} if self.block is None else {"block": self.block}),
            "module": self.module,
            "call": self.call,
            "shape": list(self.shape),
            "mean_abs": found.mean,
            "std_abs": found.std,
            "variance": found.variance,
            "quantiles": {f"{q:g}": found.quantile(q) for q in QUANTILES},
            "smallest": found.smallest,
            "largest": found.largest,
            "values": found.count + found.nonfinite,
            "zeros": found.zeros,
            "nonfinite": found.nonfinite,
            "output_rms": self.output_rms if isfinite(self.output_rms) else None,
            "histogram": {
                "from_log10": float(edges[0]) if len(edges) else None,
                "bins_per_decade": DRAWN_PER_DECADE,
                "counts": counts.tolist(),
            },
        }


@dataclass(frozen=True, repr=False)
class NetworkGradients(Concise):
    """One network: its stages' outputs in forward order, and its blocks' if they were asked for.

    `batch_sizes` are the sizes that batches had, the largest first. `loss` is the mean over images; the gradients are
    of its sum over a batch. `epoch` says how long the network was trained and `weights_seed` from which seed, None if
    that is not known; `made_from` is what the caller said of how it was made, and `plain_from` of how the same without
    attention is made, None if it is no network with DIA-LSTM.
    """

    name: str
    stages: tuple[PointGradients, ...]
    blocks: tuple[PointGradients, ...]
    mode: Mode
    num_images: int
    batch_sizes: tuple[int, ...]
    loss_name: str
    loss: float
    seed: int
    epoch: int | None
    weights_seed: int | None
    made_from: dict[str, Any]
    provenance: Provenance
    plain_from: dict[str, Any] | None = None

    @property
    def label(self) -> str:
        """The name, with the epoch if there is one."""
        return self.name if self.epoch is None else f"{self.name}, epoch {self.epoch}"

    @property
    def conditions(self) -> str:
        """What the gradient is of, and how it was measured."""
        sizes = f"batches of {' and '.join(map(str, self.batch_sizes))}"
        mode = f"training mode, {sizes}" if self.mode == "training" else f"evaluation mode (each image's own), {sizes}"
        images = quantity(self.num_images, "image")
        return f"the {self.loss_name} summed over a batch; {images}, {mode}"

    @property
    def decades_per_stage(self) -> tuple[float | None, ...]:
        """What the mean absolute gradient gains, in decades, on its way back from one stage's output to the one before.

        One number for each stage but the last, negative where it shrinks; None where a mean is zero or missing.
        """
        pairs = zip(self.stages, self.stages[1:], strict=False)
        return tuple(finite(decades(early.magnitudes.mean, late.magnitudes.mean)) for early, late in pairs)

    @property
    def change(self) -> Change:
        """What becomes of |g| on its way back from the last stage's output to the first's; of one stage, nothing."""
        if len(self.stages) < 2:
            return Change(None, None)
        early, late = self.stages[0].magnitudes, self.stages[-1].magnitudes
        return Change(decades(early.mean, late.mean), decades(early.quantile(0.5), late.quantile(0.5)))

    @property
    def verdict(self) -> Word:
        """What becomes of |g| in this network, by its mean and its median at the first and the last stage's output.

        `vanishes` or `explodes`: both by a factor of 10 or more; `keeps its size`: both within a factor of 2;
        `shrinks` or `grows`: in between; `inconclusive`: mean and median disagree. `is not finite`: some value.
        """
        if any(stage.magnitudes.nonfinite for stage in self.stages):
            return "is not finite"
        if any(stage.magnitudes.mean == 0 for stage in self.stages):
            return "vanishes"
        mean, median = self.change.mean, self.change.median
        return word(None if mean is None else (mean, mean), None if median is None else (median, median))

    def finding(self) -> str:
        """The verdict in a sentence."""
        if self.verdict == "is not finite":
            odd = [stage for stage in self.stages if stage.magnitudes.nonfinite]
            shares = ", ".join(f"{_share(stage.magnitudes)} at stage {stage.stage}" for stage in odd)
            return f"{self.label}: the gradient is not finite ({shares})."
        if len(self.stages) < 2:
            return f"{self.label}: there is one stage, so nothing can be said about the way from stage to stage."
        dead = [str(stage.stage) for stage in self.stages if not stage.magnitudes.mean]
        if dead:
            return f"{self.label}: the gradient vanishes: it is exactly zero at stage {', '.join(dead)}."
        mean, median = self.change.mean, self.change.median
        steps = ", ".join("–" if d is None else f"{d:+.2f}" for d in reversed(self.decades_per_stage))
        outcome = (
            "mean and median of |g| disagree, so what becomes of it is inconclusive"
            if self.verdict == "inconclusive"
            else f"|g| {self.verdict}"
        )
        middle = "is zero at both" if median is None else f"changes by {decades_text(median)}"
        return (
            f"{self.label}: {outcome}: from stage {self.stages[-1].stage} back to stage {self.stages[0].stage} its "
            f"mean changes by {mean:+.2f} decades (stage by stage {steps}), its median {middle}."
        )

    def to_dict(self) -> dict[str, Any]:
        """One of the `models` of the JSON document dia.gradients/1."""
        blocks = {"blocks": [block.to_dict() for block in self.blocks]} if self.blocks else {}
        return {
            "name": self.name,
            "epoch": self.epoch,
            "made_from": self.made_from,
            "stages": [stage.to_dict() for stage in self.stages],
            **blocks,
            "decades": finite(self.change.mean),
            "decades_median": finite(self.change.median),
            "decades_per_stage": list(self.decades_per_stage),
            "verdict": self.verdict,
            "finding": self.finding(),
            "loss_name": self.loss_name,
            "loss": self.loss if isfinite(self.loss) else None,
            "mode": self.mode,
            "images": self.num_images,
            "batch_size": max(self.batch_sizes),
            "batch_sizes": list(self.batch_sizes),
            "seed": self.seed,
            "weights_seed": self.weights_seed,
            "provenance": self.provenance.to_dict(),
        }

    def to_xarray(self) -> xr.Dataset:
        """Counts of the absolute gradient by output and log10 bin, and mean, variance, zeros and non-finite counts."""
        points = (*self.stages, *self.blocks)
        counts = np.stack([point.magnitudes.histogram for point in points])
        filled = np.flatnonzero(counts.any(0))
        kept = slice(filled[0], filled[-1] + 1) if len(filled) else slice(0, 0)
        centres = LOWEST + (np.arange(counts.shape[1]) + 0.5) / PER_DECADE
        numbers = {
            "mean_abs": [_or_nan(p.magnitudes.mean) for p in points],
            "variance": [_or_nan(p.magnitudes.variance) for p in points],
            "zeros": [float(p.magnitudes.zeros) for p in points],
            "nonfinite": [float(p.magnitudes.nonfinite) for p in points],
            "stage": [p.stage for p in points],
            "block": [p.block or 0 for p in points],
        }
        return xr.Dataset(
            {"histogram": (("output", "log10"), counts[:, kept].astype(np.float64))}
            | {name: ("output", values) for name, values in numbers.items()},
            coords={"output": [f"{p.module}#{p.call}" for p in points], "log10": centres[kept]},
            attrs={"name": self.name, "block": "0 stands for the stage's output"},
        )


@dataclass(frozen=True, repr=False)
class GradientResult(Result):
    """Networks side by side, from several seeds each, or one along its training."""

    file = "gradients"
    networks: tuple[NetworkGradients, ...]

    @property
    def over_seeds(self) -> tuple[OverSeeds, ...]:
        """The networks by name and epoch, all seeds of one together."""
        return by_network(self.networks)

    @property
    def conditions(self) -> str:
        """What the gradients are of, and how they were measured."""
        return "; ".join(dict.fromkeys(network.conditions for network in self.networks))

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.gradients/1."""
        return {
            "schema": "dia.gradients/1",
            "gradient_of": self.conditions,
            "models": [network.to_dict() for network in self.networks],
            "over_seeds": [group.to_dict() for group in self.over_seeds],
        }

    def summary(self) -> str:
        """What was measured, a table of networks and stages, and a sentence on each network."""
        groups = self.over_seeds
        several = any(len(group.networks) > 1 for group in groups)
        extent = ("mean, lowest", "highest") if several else ()
        rows = [_row(group.label, stage, several) for group in groups for stage in group.stages]
        table = text_table([(*HEADS, *extent), *rows], left=[0])
        note = "; of several seeds the median" if several else ""
        about = f"Absolute gradient g at each stage's output, of {self.conditions}{note}."
        return "\n".join([about, "", table, "", *(group.finding() for group in groups)])

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each output of each network: its mean, variance, zeros and values that are not finite."""
        networks = [
            ({"network": n.name, "epoch": n.epoch, "weights_seed": n.weights_seed}, n.to_xarray())
            for n in self.networks
        ]
        return long_form(networks, "stage", "block", "mean_abs", "variance", "zeros", "nonfinite")

    def datasets(self) -> dict[str, xr.Dataset]:
        """By network, as `NetworkGradients.to_xarray` has them, numbered in their order."""
        return {f"network{number}": network.to_xarray() for number, network in enumerate(self.networks, 1)}

    def about(self) -> dict[str, Any]:
        """Where each network comes from."""
        return {"networks": [network.provenance.to_dict() for network in self.networks]}

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The distributions at each stage's output; of too many networks to tell apart, nothing."""
        groups = self.over_seeds
        if len(groups) > MOST_DRAWN:
            return []
        return [partial(self._draw, index) for index in range(max(len(group.stages) for group in groups))]

    def _draw(self, index: int, ax: "Axes") -> None:
        from dia_analysis.gradients.drawing import draw_stage

        draw_stage(ax, self.over_seeds, index)
        ax.set(title=f"Stage {index + 1}", xlabel="Absolute gradient\n(line: mean)", ylabel="" if index else "Density")

    def complete(self, axes: "Sequence[Axes]") -> None:
        """A legend above all stages."""
        if axes:
            handles, labels = axes[0].get_legend_handles_labels()
            axes[0].figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)))


def _share(found: Magnitudes) -> str:
    total = found.count + found.nonfinite
    return f"{found.nonfinite:,} of {total:,} values"


def _row(label: str, stage: StageOverSeeds, several: bool) -> tuple[str, ...]:
    sizes = (stage.mean, stage.median, stage.std, stage.low, stage.high)
    extent = (stage.mean_lowest, stage.mean_highest) if several else ()
    return (
        label,
        str(stage.stage),
        *map(_written, sizes),
        str(stage.zeros),
        str(stage.nonfinite),
        _written(stage.relative),
        *map(_written, extent),
    )


def _written(number: float | None) -> str:
    return "-" if number is None or not isfinite(number) else f"{number:.2e}"


def _or_nan(number: float | None) -> float:
    return float("nan") if number is None else number
