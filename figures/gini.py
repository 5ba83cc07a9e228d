"""Fig. 11: how much each earlier layer of a stage tells a random forest about each later one."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dia_analysis import GiniResult, StageGini
from figures.style import COLUMN, styled

COLOURS = "Blues"


@styled
def triangles(results: Mapping[str, GiniResult]) -> Figure:
    """Draw a triangle for every stage with at least two layers: a row of triangles for every result.

    A cell is the Gini importance of a source layer for a target layer, all on one scale; each row of a triangle sums
    to 1. A cross marks a source that does not rise above its null; the line parts the two nearest layers from those
    beyond, whose share in the importance stands above each triangle.
    """
    drawn = {name: _with_sources(result) for name, result in results.items()}
    columns = max(map(len, drawn.values()))
    if not columns:
        raise ValueError("no stage has two attention layers, so there is no importance to draw")
    highest = max(float(np.nanmax(s.importance(), initial=0)) for stages in drawn.values() for s in stages) or 1.0
    figure = Figure(figsize=(COLUMN, 0.55 + len(drawn) * (0.3 + COLUMN / max(columns, 3))), layout="constrained")
    axes = figure.subplots(len(drawn), columns, squeeze=False)
    image: AxesImage | None = None
    for row, (name, stages) in zip(axes, drawn.items(), strict=True):
        for ax, stage in zip(row, stages, strict=False):
            image = _draw_triangle(ax, stage, highest)
        row[0].set_ylabel(f"{name}\nTarget layer" if len(drawn) > 1 else "Target layer")
        for ax in row[len(stages) :]:
            ax.remove()
    for ax in axes[-1][: len(stages)]:
        ax.set_xlabel("Source layer")
    assert image is not None
    figure.colorbar(image, ax=axes, label="Gini importance", location="bottom", aspect=40, shrink=0.8)
    cross = Line2D([], [], color="#D55E00", marker="x", ms=3, mew=0.7, ls="", label="not above its null")
    line = Line2D([], [], color="0.2", lw=0.8, label="two nearest | beyond")
    figure.legend(handles=[cross, line], loc="outside upper center", ncols=2)
    return figure


def _with_sources(result: GiniResult) -> tuple[StageGini, ...]:
    return tuple(stage for stage in result.stages if stage.numbers is not None)


def _draw_triangle(ax: Axes, stage: StageGini, highest: float) -> AxesImage:
    last = len(stage.layers)
    extent = (0.5, last - 0.5, last + 0.5, 1.5)
    image = ax.imshow(stage.importance(), vmin=0, vmax=highest, cmap=COLOURS, extent=extent)
    share = stage.beyond_two_nearest().mean()
    ax.set_title(f"Stage {stage.stage}\nbeyond: {'–' if np.isnan(share) else f'{share:.2f}'}")
    ax.set_facecolor("0.9")  # where there is no source
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    _mark(ax, stage)
    _part(ax, last)
    return image


def _mark(ax: Axes, stage: StageGini) -> None:
    """A cross on every source that has an importance, and a permutation importance that is not above the null."""
    unsure = np.isfinite(stage.permutation()) & np.isfinite(stage.importance()) & ~stage.above_null()
    targets, sources = np.nonzero(unsure)
    size = min(4.0, 30 / len(stage.layers))
    ax.plot(sources + 1, targets + 2, "x", color="#D55E00", ms=size, mew=0.6)


def _part(ax: Axes, last: int) -> None:
    """A staircase between the two nearest sources and those beyond."""
    for target in range(4, last + 1):
        edge = target - 2.5
        ax.plot([edge, edge], [target - 0.5, target + 0.5], color="0.2", lw=0.8)
        ax.plot([edge - 1, edge], [target - 0.5, target - 0.5], color="0.2", lw=0.8)
