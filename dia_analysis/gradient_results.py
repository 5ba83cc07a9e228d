"""What `measure_gradients` gives: numbers per stage and block of each network, and what they say."""

from dataclasses import dataclass
from math import isfinite, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dia_analysis.display import Displayed, axes
from dia_analysis.magnitudes import LOWEST, PER_DECADE, Magnitudes
from dia_analysis.output import new_directory, write_json
from dia_analysis.provenance import Provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
DRAWN_PER_DECADE = 10
SHARP_CHANGE = 1.0  # decades between the last and the first stage from which a gradient vanishes or explodes


@dataclass(frozen=True)
class PointGradients:
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

    def plot(self, ax: "Axes | None" = None, label: str | None = None) -> "Axes":
        """Draw the distribution of the absolute gradient on a log axis."""
        ax = axes(ax)
        counts, edges = self.magnitudes.binned(DRAWN_PER_DECADE)
        if len(counts):
            ax.stairs(counts / counts.sum() * DRAWN_PER_DECADE, 10.0**edges, label=label)
        ax.set(xscale="log", xlabel="Absolute gradient", ylabel="Density per decade")
        return ax


@dataclass(frozen=True)
class NetworkGradients:
    """One network: its stages' outputs in forward order, and its blocks' if they were asked for.

    `loss` is the mean cross-entropy; `epoch` says how long the network was trained, None if that is not known;
    `made_from` is what the caller said of how it was made.
    """

    name: str
    stages: tuple[PointGradients, ...]
    blocks: tuple[PointGradients, ...]
    images: int
    batch_size: int
    loss: float
    seed: int
    epoch: int | None
    made_from: dict[str, Any]
    provenance: Provenance

    @property
    def label(self) -> str:
        """The name, with the epoch if there is one."""
        return self.name if self.epoch is None else f"{self.name}, epoch {self.epoch}"

    @property
    def decades_per_stage(self) -> tuple[float | None, ...]:
        """What the mean absolute gradient gains, in decades, on its way back from one stage's output to the one before.

        One number for each stage but the last, negative where it shrinks; None where a mean is zero or missing.
        """
        pairs = zip(self.stages, self.stages[1:], strict=False)
        return tuple(_decades(early.magnitudes.mean, late.magnitudes.mean) for early, late in pairs)

    @property
    def decades(self) -> float | None:
        """The same from the last stage's output to the first's."""
        return _decades(self.stages[0].magnitudes.mean, self.stages[-1].magnitudes.mean)

    @property
    def verdict(self) -> str:
        """`vanishes`, `explodes`, `keeps its size`, or `is not finite`, by the decades between last and first stage."""
        if any(stage.magnitudes.nonfinite for stage in self.stages):
            return "is not finite"
        if any(stage.magnitudes.mean == 0 for stage in self.stages) or (self.decades or 0) <= -SHARP_CHANGE:
            return "vanishes"
        return "explodes" if (self.decades or 0) >= SHARP_CHANGE else "keeps its size"

    def finding(self) -> str:
        """The verdict in a sentence."""
        if self.verdict == "is not finite":
            odd = [stage for stage in self.stages if stage.magnitudes.nonfinite]
            shares = ", ".join(f"{_share(stage.magnitudes)} at stage {stage.stage}" for stage in odd)
            return f"{self.label}: the gradient is not finite ({shares})."
        if len(self.stages) < 2:
            return f"{self.label}: there is one stage, so nothing can be said about the way from stage to stage."
        if self.decades is None:
            dead = [str(stage.stage) for stage in self.stages if not stage.magnitudes.mean]
            return f"{self.label}: the gradient vanishes: it is exactly zero at stage {', '.join(dead)}."
        steps = ", ".join("–" if d is None else f"{d:+.2f}" for d in reversed(self.decades_per_stage))
        return (
            f"{self.label}: the gradient {self.verdict}: {self.decades:+.2f} decades from stage "
            f"{self.stages[-1].stage} back to stage {self.stages[0].stage} (stage by stage {steps})."
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
            "decades": self.decades,
            "decades_per_stage": list(self.decades_per_stage),
            "verdict": self.verdict,
            "finding": self.finding(),
            "loss": self.loss if isfinite(self.loss) else None,
            "images": self.images,
            "batch_size": self.batch_size,
            "seed": self.seed,
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


@dataclass(frozen=True)
class GradientResult(Displayed):
    """Networks side by side, or one along its training."""

    networks: tuple[NetworkGradients, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.gradients/1."""
        return {
            "schema": "dia.gradients/1",
            "loss": "cross-entropy, mean over the batch; network in training mode",
            "models": [network.to_dict() for network in self.networks],
        }

    def summary(self) -> str:
        """A table of networks and stages, and a sentence on each network."""
        heads = ("network", "stage", "mean |g|", "std", "median", "5 %", "95 %", "zero", "not finite", "|g| x rms")
        rows = [_row(network, stage) for network in self.networks for stage in network.stages]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = ["  ".join(_aligned(row, widths)) for row in (heads, *rows)]
        return "\n".join([*lines, "", *(network.finding() for network in self.networks)])

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the mean absolute gradient at each stage's output, one line per network, on a log axis."""
        ax = axes(ax)
        for network in self.networks:
            means = [_or_nan(stage.magnitudes.mean) for stage in network.stages]
            ax.plot([stage.stage for stage in network.stages], means, "o-", label=network.label)
        ax.set(yscale="log", xlabel="Stage", ylabel="Mean absolute gradient")
        ax.legend()
        return ax

    def save(self, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Write the JSON document and the labelled arrays to a new directory, with a manifest."""
        about = {"models": [network.provenance.to_dict() for network in self.networks]}
        with new_directory(Path(directory), about, overwrite=overwrite) as folder:
            write_json(folder / "gradients.json", self.to_dict())
            self.write_arrays(folder)
        return Path(directory)

    def write_arrays(self, folder: Path) -> None:
        """Write one NetCDF file per network into a folder that exists, numbered in their order."""
        for number, network in enumerate(self.networks, 1):
            network.to_xarray().to_netcdf(folder / f"network{number}.nc", engine="scipy")


def _decades(early: float | None, late: float | None) -> float | None:
    return log10(early / late) if early and late else None


def _share(found: Magnitudes) -> str:
    total = found.count + found.nonfinite
    return f"{found.nonfinite:,} of {total:,} values"


def _row(network: NetworkGradients, stage: PointGradients) -> tuple[str, ...]:
    found = stage.magnitudes
    numbers = (found.mean, found.std, *(found.quantile(q) for q in (0.5, 0.05, 0.95)))
    return (
        network.label,
        str(stage.stage),
        *("-" if n is None else f"{n:.2e}" for n in numbers),
        str(found.zeros),
        str(found.nonfinite),
        "-" if stage.relative is None or not isfinite(stage.relative) else f"{stage.relative:.2e}",
    )


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    name, *numbers = row
    return [name.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True))]


def _or_nan(number: float | None) -> float:
    return float("nan") if number is None else number
