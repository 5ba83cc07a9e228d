"""Fig. 11: how much each earlier layer of a stage tells a random forest about each later one."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dia_analysis import GiniResult, StageGini
from dia_analysis.importance.results import UNSURE
from dia_analysis.importance.rows import Rows
from dia_analysis.results.style import COLUMN, styled

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
    for row, (name, stages) in zip(axes, drawn.items(), strict=True):
        for ax, stage in zip(row, stages, strict=False):
            stage.draw(ax, highest)
            ax.set(xlabel="", ylabel="")
        row[0].set_ylabel(f"{name}\nTarget layer" if len(drawn) > 1 else "Target layer")
        for ax in row[len(stages) :]:
            ax.remove()
    for ax in axes[-1][: len(stages)]:
        ax.set_xlabel("Source layer")
    image = next(image for ax in figure.axes for image in ax.images)
    figure.colorbar(image, ax=axes, label="Gini importance", location="bottom", aspect=40, shrink=0.8)
    cross = Line2D(
        [], [], color=UNSURE, marker="x", ms=3, mew=0.7, ls="", label="no more than from another image's map"
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
