"""Fig. 11: how much each earlier layer of a stage tells a random forest about each later one."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dia_analysis import GiniResult, StageGini
from dia_analysis.importance.rows import Rows
from figures.style import COLUMN, styled

COLOURS = "Blues"
SHORT: Mapping[Rows, str] = {
    "centred": "a channel of an image, its mean removed",
    "raw": "a channel of an image, as captured",
    "vector": "an image, all channels",
}


@styled
def triangles(results: Mapping[str, GiniResult]) -> Figure:
    """Draw a triangle for every stage with at least two layers: a row of triangles for every result.

    A cell is the Gini importance of a source layer for a target layer, all on one scale; each row of a triangle sums
    to 1. A cross marks a source whose permutation importance is not above the highest that any source got when the
    target was another image's. The line parts the two nearest layers from those further back, whose share in the
    importance, and how well the forests predict, stand above each triangle. The title says what a forest's row is.
    """
    drawn = {name: _with_sources(result) for name, result in results.items()}
    columns = max(map(len, drawn.values()))
    if not columns:
        raise ValueError("no stage has two attention layers, so there is no importance to draw")
    highest = max(float(np.nanmax(s.importance(), initial=0)) for stages in drawn.values() for s in stages) or 1.0
    figure = Figure(figsize=(COLUMN, 0.75 + len(drawn) * (0.55 + COLUMN / max(columns, 3))), layout="constrained")
    figure.suptitle(about_rows(results), fontsize=7)
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
    cross = Line2D(
        [], [], color="#D55E00", marker="x", ms=3, mew=0.7, ls="", label="no more than from another image's map"
    )
    line = Line2D([], [], color="0.2", lw=0.8, label="further back | two nearest")
    figure.legend(handles=[cross, line], loc="outside lower center", ncols=2)
    return figure


def about_rows(results: Mapping[str, GiniResult]) -> str:
    """What a row of the forests is."""
    kinds = dict.fromkeys(result.rows for result in results.values())
    return "\n".join(f"{kind.capitalize()} rows: {SHORT[kind]}" for kind in kinds)


def _with_sources(result: GiniResult) -> tuple[StageGini, ...]:
    return tuple(stage for stage in result.stages if stage.numbers is not None)


def _draw_triangle(ax: Axes, stage: StageGini, highest: float) -> AxesImage:
    last = len(stage.layers)
    extent = (0.5, last - 0.5, last + 0.5, 1.5)
    image = ax.imshow(stage.importance(), vmin=0, vmax=highest, cmap=COLOURS, extent=extent)
    share, r2 = stage.beyond_two_nearest(), stage.mean_r2()
    ax.set_title(f"Stage {stage.stage}\nfurther back: {_two(share)}\nR² {_two(r2)}")
    ax.set_facecolor("0.9")  # where there is no source
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    _mark(ax, stage)
    _part(ax, last)
    return image


def _two(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:z.2f}".replace("-", "−")


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
