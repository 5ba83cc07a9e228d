"""Fig. 13: how large the gradient is at each stage's output, for several networks, along depth and training."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dia_analysis import GradientResult, NetworkGradients, PointGradients
from figures.style import COLOURS, COLUMN, logarithmic, styled

DRAWN_PER_DECADE = 10
LINES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
BAND = (0.05, 0.95)


@styled
def gradient_distributions(result: GradientResult) -> Figure:
    """Draw the distribution of the absolute gradient on a log axis: one row per stage, one colour per network.

    Zeros and values that are not finite have no place on this axis; their shares stand beside it. The axis leaves out
    the smallest 0.1 % of each distribution.
    """
    stages = max(len(network.stages) for network in result.networks)
    figure = Figure(figsize=(COLUMN, 0.55 + 0.62 * stages + _legend_height(result)), layout="constrained")
    axes = figure.subplots(stages, 1, sharex=True, squeeze=False)[:, 0]
    for index, ax in enumerate(axes):
        for network, style in zip(result.networks, _styles(len(result.networks)), strict=True):
            if index < len(network.stages):
                _draw_distribution(ax, network.stages[index], network.label, style)
        _note_missing(ax, [network for network in result.networks if index < len(network.stages)], index)
        ax.set(yticks=[], ylabel=f"Stage {index + 1}", ylim=(0, None))
        ax.spines["left"].set_visible(False)
    _scale(axes[-1], [stage for network in result.networks for stage in network.stages])
    axes[-1].set_xlabel("Absolute gradient at the stage's output (line: mean)")
    _legend(figure, list(axes))
    return figure


@styled
def gradients_along_depth(result: GradientResult) -> Figure:
    """Draw the mean absolute gradient at each block's output, in forward order, with a line between stages.

    The band holds 90 % of the values.
    """
    figure = Figure(figsize=(COLUMN, 2.0 + _legend_height(result)), layout="constrained")
    ax = figure.subplots()
    for network, style in zip(result.networks, _styles(len(result.networks)), strict=True):
        positions = np.arange(1, len(network.blocks) + 1)
        _draw_band(ax, positions, network.blocks, network.label, style)
    _mark_stages(ax, max(result.networks, key=lambda network: len(network.blocks)))
    ax.set(yscale="log", xlabel="Block", ylabel="Absolute gradient (line: mean)")
    logarithmic(ax.yaxis)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, [ax])
    return figure


@styled
def gradients_along_training(result: GradientResult) -> Figure:
    """Draw the mean absolute gradient at each stage's output over the epochs: one panel per stage, one line per run.

    The band holds 90 % of the values; epoch 0 is before training.
    """
    runs = [list(run) for _, run in groupby(_with_epoch(result), key=lambda network: network.name)]
    stages = max(len(network.stages) for run in runs for network in run)
    figure = Figure(figsize=(COLUMN, 1.9 + 0.12 * len(runs)), layout="constrained")
    axes = figure.subplots(1, stages, sharey=True, squeeze=False)[0]
    for index, ax in enumerate(axes):
        for run, style in zip(runs, _styles(len(runs)), strict=True):
            having = [network for network in run if index < len(network.stages)]
            epochs = np.array([network.epoch for network in having])
            _draw_band(ax, epochs, [network.stages[index] for network in having], run[0].name, style)
        ax.set(yscale="log", title=f"Stage {index + 1}", xlabel="Epoch")
        logarithmic(ax.yaxis)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0].set_ylabel("Absolute gradient (line: mean)")
    _legend(figure, list(axes))
    return figure


def _styles(count: int) -> list[dict[str, Any]]:
    """A colour, and after the last colour another kind of line; each with a marker of its own."""
    rounds = [(line, colour, marker) for line in LINES for colour, marker in zip(COLOURS, MARKERS, strict=True)]
    if count > len(rounds):
        raise ValueError(f"{count} networks cannot be told apart in one figure; draw at most {len(rounds)}")
    return [{"ls": line, "color": colour, "marker": marker} for line, colour, marker in rounds[:count]]


def _draw_distribution(ax: Axes, stage: PointGradients, name: str, style: dict[str, Any]) -> None:
    counts, edges = stage.magnitudes.binned(DRAWN_PER_DECADE)
    line = {"color": style["color"], "ls": style["ls"]}
    if len(counts):
        ax.stairs(counts / counts.max(), 10.0**edges, fill=True, color=style["color"], alpha=0.2)
        ax.stairs(counts / counts.max(), 10.0**edges, label=name, **line)
        ax.axvline(float(stage.magnitudes.mean or 0), lw=0.8, **line)
    else:
        ax.plot([], [], label=name, **line)


def _scale(ax: Axes, stages: Sequence[PointGradients]) -> None:
    """A log axis that shows the distributions, if there is any: gradients may all be zero."""
    low = [value for stage in stages if (value := stage.magnitudes.quantile(0.001) or stage.magnitudes.smallest)]
    high = [value for stage in stages if (value := stage.magnitudes.largest)]
    if low:
        ax.set_xscale("log")
        logarithmic(ax.xaxis)
        ax.set_xlim(min(low) / 2, max(high) * 2)


def _note_missing(ax: Axes, networks: Sequence[NetworkGradients], index: int) -> None:
    notes = []
    for network in networks:
        found = network.stages[index].magnitudes
        total = found.count + found.nonfinite
        notes += [f"{network.label}: {found.zeros / total:.2%} zero"] if found.zeros else []
        notes += [f"{network.label}: {found.nonfinite / total:.2%} not finite"] if found.nonfinite else []
    ax.text(0.01, 0.95, "\n".join(notes), transform=ax.transAxes, fontsize=5, va="top")


def _draw_band(
    ax: Axes, positions: np.ndarray, points: Sequence[PointGradients], name: str, style: dict[str, Any]
) -> None:
    means = [_drawable(point.magnitudes.mean) for point in points]
    low, high = ([_drawable(point.magnitudes.quantile(q)) for point in points] for q in BAND)
    ax.fill_between(positions, low, high, color=style["color"], alpha=0.12, lw=0)
    ax.plot(positions, means, ms=2.5, label=name, **style)


def _drawable(value: float | None) -> float:
    return value or float("nan")  # zero and nothing have no place on a log axis


def _mark_stages(ax: Axes, network: NetworkGradients) -> None:
    position = 0.5
    for stage, blocks in groupby(network.blocks, key=lambda block: block.stage):
        count = len(list(blocks))
        middle = position + count / 2
        ax.text(middle, 1.0, f"stage {stage}", transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=6)
        position += count
        if position < len(network.blocks):
            ax.axvline(position, color="0.7", lw=0.6)


def _with_epoch(result: GradientResult) -> list[NetworkGradients]:
    networks = [network for network in result.networks if network.epoch is not None]
    if not networks:
        raise ValueError("no network has an epoch, so there is no training to draw")
    return networks


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=_columns(labels))


def _columns(labels: Sequence[str]) -> int:
    return max(min(len(labels), 66 // max(len(label) + 6 for label in labels)), 1)


def _legend_height(result: GradientResult) -> float:
    labels = [network.label for network in result.networks]
    return 0.12 * -(-len(labels) // _columns(labels))
