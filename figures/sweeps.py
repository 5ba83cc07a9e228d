"""Figures of trained networks: by batch size (Fig. 8) and number of blocks (Fig. 10), along training (14 and 15)."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dia_analysis.paper.sweeps import Cell, SweepResult, TrainedRun, spread_text
from dia_analysis.results.style import COLORS, COLUMN, styled

DODGE = 0.06
COUNTED = re.compile(r"(.+), (\d+) blocks?")
BATCHED = re.compile(r"(.+), batch (\d+)")
INCEPTION = "inception"


@styled
def by_batch_size(result: SweepResult) -> Figure:
    """Draw the Fréchet distance of generated images against the batch size (Fig. 8), mean and standard deviation.

    Variants are called `KIND, batch N`. The dashed line is the distance of the real test images, which are fewer.
    """
    figure = Figure(figsize=(COLUMN, 0.65 * COLUMN), layout="constrained")
    ax = figure.subplots()
    kinds: defaultdict[str, list[tuple[int, Cell]]] = defaultdict(list)
    for cell in result.cells():
        if match := BATCHED.fullmatch(cell.variant):
            kinds[match[1]].append((int(match[2]), cell))
    details = next((run.details for run in result.runs if run.details), {})
    for place, (color, marker, (kind, points)) in enumerate(zip(COLORS, "osD^v", kinds.items(), strict=False)):
        sizes, cells = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        means, stds = zip(*((c.score.mean, np.nan_to_num(c.score.std)) for c in cells), strict=True)
        beside = np.array(sizes) * (1 + DODGE * place)  # so that no bar hides another
        ax.errorbar(beside, means, stds, color=color, marker=marker, ms=3, capsize=2, label=kind)
    if (floor := details.get("of_test_images")) is not None:
        ax.axhline(floor, color="0.5", ls="--", lw=0.8, label="real test images")
    ticks = sorted({size for points in kinds.values() for size, _ in points})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, labels=[str(size) for size in ticks], minor=False)
    ax.set(xlabel="Batch size", ylabel=_distance(details), ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _distance(details: Mapping[str, Any]) -> str:
    """FID is the name of the distance in Inception's features only."""
    features, count = details.get("features", "a classifier"), f"{details.get('images', 'no')} images"
    return f"FID ({count})" if features == INCEPTION else f"Fréchet distance\n(features of {features},\n{count})"


@styled
def by_blocks(result: SweepResult) -> Figure:
    """Draw test accuracy against the number of blocks with attention (Fig. 10), mean and standard deviation.

    Variants are called `KIND, N blocks`; one that is not, such as the plain network, is a horizontal line.
    """
    figure = Figure(figsize=(COLUMN, 0.65 * COLUMN), layout="constrained")
    ax = figure.subplots()
    kinds: defaultdict[str, list[tuple[int, Cell]]] = defaultdict(list)
    for cell in result.cells():
        if match := COUNTED.fullmatch(cell.variant):
            kinds[match[1]].append((int(match[2]), cell))
        else:
            ax.axhline(cell.score.mean, color="0.5", ls="--", lw=0.8, label=cell.variant)
    for place, (color, marker, (kind, points)) in enumerate(zip(COLORS, "osD^v", kinds.items(), strict=False)):
        counts, cells = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        means, stds = zip(*((c.score.mean, np.nan_to_num(c.score.std)) for c in cells), strict=True)
        beside = np.array(counts) + DODGE * place  # so that no bar hides another
        ax.errorbar(beside, means, stds, color=color, marker=marker, ms=3, capsize=2, label=kind)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="Blocks of each stage that have attention", ylabel="Test accuracy (%)")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


@styled
def along_training(result: SweepResult) -> Figure:
    """Draw validation accuracy and training loss by epoch (Figs. 14 and 15): mean over seeds, least to greatest shaded.

    The test images are used only once, at the end, so that the curves are of validation images; the test accuracy
    stands in the legend. Only the first data and backbone are drawn.
    """
    first = result.runs[0]
    runs = [run for run in result.runs if (run.data, run.backbone) == (first.data, first.backbone)]
    cells = {
        cell.variant: cell for cell in result.cells() if (cell.data, cell.backbone) == (first.data, first.backbone)
    }
    figure = Figure(figsize=(COLUMN, 0.62 * COLUMN), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    for color, (variant, cell) in zip(COLORS, cells.items(), strict=False):
        own = [run for run in runs if run.variant == variant]
        _curve(accuracy, own, "val_accuracy", 100, color, f"{variant} (test {spread_text(cell.score)})")
        _curve(loss, own, "train_loss", 1, color, None)
    accuracy.set(xlabel="Epoch", ylabel="Validation accuracy (%)")
    loss.set(xlabel="Epoch", ylabel="Training loss")
    for ax in (accuracy, loss):
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.legend(loc="outside upper center", ncols=1 if len(cells) > 2 else 2)
    return figure


def _curve(ax: Axes, runs: list[TrainedRun], key: str, factor: float, color: str, label: str | None) -> None:
    longest = max((len(run.epochs) for run in runs), default=0)
    values = np.full((len(runs), longest), np.nan)
    for row, run in zip(values, runs, strict=True):
        row[: len(run.epochs)] = [_value(epoch.get(key), factor) for epoch in run.epochs]
    epochs = [i for i in range(longest) if np.isfinite(values[:, i]).any()]
    kept = values[:, epochs]
    numbers = [i + 1 for i in epochs]
    ax.plot(numbers, np.nanmean(kept, axis=0) if epochs else [], color=color, label=label)
    if epochs:
        ax.fill_between(numbers, np.nanmin(kept, axis=0), np.nanmax(kept, axis=0), color=color, alpha=0.2, lw=0)


def _value(value: float | None, factor: float) -> float:
    return np.nan if value is None else factor * value


OF_SWEEPS: Mapping[str, Callable[[SweepResult], Figure]] = {
    "figure08": by_batch_size,
    "figure10": by_blocks,
    "figure14": along_training,
    "figure15": along_training,
}
"""The figures of the paper that are drawn from sweeps, by the sweep's name."""
