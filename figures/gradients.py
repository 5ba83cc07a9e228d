"""Fig. 13: how large the gradient is at each stage's output, for several networks, along depth and training."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dia_analysis import GradientResult, NetworkGradients, PointGradients
from dia_analysis.gradients.drawing import draw_stage, line_styles
from dia_analysis.results.style import COLUMN, logarithmic, styled

BAND = (0.05, 0.95)


@styled
def gradient_distributions(result: GradientResult) -> Figure:
    """Draw the distribution of the absolute gradient on a log axis: one row per stage, one color per network.

    Several seeds of a network share its color. Zeros and values that are not finite have no place on this axis;
    their shares stand beside it. The axis leaves out the smallest 0.1 % of each distribution.
    """
    groups = result.over_seeds
    stages = max(len(group.stages) for group in groups)
    figure = Figure(figsize=(COLUMN, 0.55 + 0.62 * stages + _legend_height(result)), layout="constrained")
    axes = figure.subplots(stages, 1, sharex=True, squeeze=False)[:, 0]
    for index, ax in enumerate(axes):
        draw_stage(ax, groups, index)
        ax.set_ylabel(f"Stage {index + 1}")
    axes[-1].set_xlabel("Absolute gradient of the summed loss (line: mean)")
    _legend(figure, list(axes))
    return figure


@styled
def gradients_along_depth(result: GradientResult) -> Figure:
    """Draw the mean absolute gradient at each block's output, in forward order, with a line between stages.

    The band holds 90 % of the values. Each seed of a network has a line and a band, in its network's color.
    """
    figure = Figure(figsize=(COLUMN, 2.0 + _legend_height(result)), layout="constrained")
    ax = figure.subplots()
    groups = result.over_seeds
    for group, style in zip(groups, line_styles(len(groups)), strict=True):
        for place, network in enumerate(group.networks):
            positions = np.arange(1, len(network.blocks) + 1)
            label = group.label if place == 0 else None
            _draw_band(ax, positions, network.blocks, label, style, 0.12 / len(group.networks))
    _mark_stages(ax, max(result.networks, key=lambda network: len(network.blocks)))
    ax.set(yscale="log", xlabel="Block", ylabel="|gradient| of the summed loss\n(line: mean)")
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
        for run, style in zip(runs, line_styles(len(runs)), strict=True):
            having = [network for network in run if index < len(network.stages)]
            epochs = np.array([network.epoch for network in having])
            _draw_band(ax, epochs, [network.stages[index] for network in having], run[0].name, style)
        ax.set(yscale="log", title=f"Stage {index + 1}", xlabel="Epoch")
        logarithmic(ax.yaxis)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0].set_ylabel("|gradient| of the summed loss\n(line: mean)")
    _legend(figure, list(axes))
    return figure


def _draw_band(
    ax: Axes,
    positions: np.ndarray,
    points: Sequence[PointGradients],
    name: str | None,
    style: dict[str, Any],
    alpha: float = 0.12,
) -> None:
    means = [_drawable(point.magnitudes.mean) for point in points]
    low, high = ([_drawable(point.magnitudes.quantile(q)) for point in points] for q in BAND)
    ax.fill_between(positions, low, high, color=style["color"], alpha=alpha, lw=0)
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
    labels = [group.label for group in result.over_seeds]
    return 0.12 * -(-len(labels) // _columns(labels))
