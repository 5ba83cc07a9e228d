"""Fig. 12: the connections that a network shows, and those that its attention's states imply."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from dia_analysis import GiniResult, StageGini
from dia_analysis.results.style import COLORS, COLUMN, styled
from figures.gini import about_rows

WIDEST = 3.0  # points, of an arc for an importance of 1
EXPLICIT, IMPLICIT, UNSURE = "0.2", COLORS[0], "0.75"


@styled
def importance_arcs(results: Mapping[str, GiniResult]) -> Figure:
    """Draw every stage's layers in a row, and an arc for each pair: as wide as the earlier layer is important.

    The row of short arrows is the explicit structure, each layer after the one before it. The arcs are measured: the
    Gini importance of the source for the target, gray where the source does not rise above its null (see Fig. 11). The
    title says what a row of the forests is.
    """
    stages = [(name, stage) for name, result in results.items() for stage in result.stages if stage.numbers is not None]
    if not stages:
        raise ValueError("no stage has two attention layers, so there are no connections to draw")
    columns = max(sum(other == name for other, _ in stages) for name in results)
    figure = Figure(
        figsize=(COLUMN, 0.75 + len(results) * (0.3 + COLUMN / max(columns, 2) * 0.6)), layout="constrained"
    )
    figure.suptitle(about_rows(results), fontsize=7)
    rows = figure.subfigures(len(results), 1, squeeze=False)[:, 0]
    for row, name in zip(rows, results, strict=True):
        own = [stage for other, stage in stages if other == name]
        axes = row.subplots(1, columns, squeeze=False)[0]
        for ax, stage in zip(axes, own, strict=False):
            _draw(ax, stage)
        for ax in axes[len(own) :]:
            ax.remove()
        if len(results) > 1:
            row.suptitle(name, fontsize=7)
    rows[-1].legend(handles=_legend(), loc="outside lower center", ncols=2)
    return figure


def _draw(ax: Axes, stage: StageGini) -> None:
    layers = len(stage.layers)
    importance, above = stage.importance(), stage.above_null()
    order = np.argsort(np.nan_to_num(importance[np.tril_indices(layers - 1)]))  # the most important on top
    for target, source in np.column_stack(np.tril_indices(layers - 1))[order]:
        value = importance[target, source]
        if value > 0:
            color = IMPLICIT if above[target, source] else UNSURE
            _arc(ax, source + 1, target + 2, WIDEST * float(value), color)
    for layer in range(1, layers):
        arrow = FancyArrowPatch((layer, 0), (layer + 1, 0), arrowstyle="-|>", mutation_scale=4, color=EXPLICIT, lw=0.6)
        ax.add_patch(arrow)
    ax.plot(range(1, layers + 1), np.zeros(layers), "o", color=EXPLICIT, ms=3, zorder=3)
    for layer in range(1, layers + 1) if layers <= 9 else (1, layers):
        ax.annotate(str(layer), (layer, 0), (0, -5), textcoords="offset points", ha="center", va="top", fontsize=6)
    ax.set(title=f"Stage {stage.stage}", xlim=(0.5, layers + 0.5), ylim=(-0.12 * layers, 0.5 * layers))
    ax.set_axis_off()


def _arc(ax: Axes, source: int, target: int, width: float, color: str) -> None:
    """Half an ellipse above the row, higher for layers further apart."""
    angle = np.linspace(0, np.pi, 40)
    middle, radius = (source + target) / 2, (target - source) / 2
    ax.plot(middle - radius * np.cos(angle), radius * np.sin(angle), color=color, lw=width, solid_capstyle="round")


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=EXPLICIT, marker="o", ms=3, lw=0.6, label="layers, explicit order"),
        Line2D([], [], color=IMPLICIT, lw=WIDEST / 2, label="importance 0.5"),
        Line2D([], [], color=UNSURE, lw=WIDEST / 2, label="no more than from another image's map"),
    ]
