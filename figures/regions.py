"""Where networks look: shares of the evidence by region, and what the regions are."""

from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from dia_analysis import RegionsResult
from dia_analysis.results.style import COLORS, styled
from dia_analysis.results.words import quantity
from dia_analysis.xray.regions import SUBSETS

WIDE = 18.1 / 2.54  # both columns of the paper, in inches
SHADOW = withStroke(linewidth=1.2, foreground="black")
SUBTITLES = {"all": "All images", "correct": "Classified rightly", "wrong": "Classified wrongly"}
KINDS = {"prior": "Regions: an approximation,\non the mean image", "masks": "Regions: masks,\non the mean image"}


@styled
def region_shares(result: RegionsResult, picture: UInt8[np.ndarray, "height width"]) -> Figure:
    """Draw the regions on a gray picture (such as the mean image), then the shares of all, right and wrong images."""
    figure = Figure(figsize=(WIDE, WIDE * 0.34), layout="constrained")
    outline, *panels = figure.subplots(1, 4, width_ratios=(0.8, 1, 1, 1))
    _outlines(outline, result, picture)
    for ax, subset in zip(panels, SUBSETS, strict=True):
        result.draw(ax, subset)
        maps = sum(int(member.chosen(subset).sum()) for member in result.members)
        ax.set_title(f"{SUBTITLES[subset]} ({quantity(maps, 'map')})")
        ax.get_legend().remove()
        if ax is not panels[0]:
            ax.set_ylabel("")
    top = max(ax.get_ylim()[1] for ax in panels)
    for ax in panels:
        ax.set_ylim(0, top)
        for label in ax.get_xticklabels():  # side by side they would run together
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=len(labels))
    return figure


def _outlines(ax: Axes, result: RegionsResult, picture: UInt8[np.ndarray, "height width"]) -> None:
    """Each region's outline, where it is in half of the images, with its name."""
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    for number, name in enumerate(result.regions):
        if name in ("elsewhere", "outside_mask"):
            continue
        inside = result.outlines[number] > 0.5
        if not inside.any() or inside.all():
            continue
        color = COLORS[(number + 1) % len(COLORS)]
        ax.contour(inside, levels=[0.5], colors=[color], linewidths=0.8)
        rows, columns = np.nonzero(inside)
        row = rows.min() if name == "border" else rows.mean()
        place: Any = {"ha": "center", "va": "top" if name == "border" else "center"}
        ax.text(columns.mean(), row, name.replace("_", "\n"), color="white", fontsize=5, path_effects=[SHADOW], **place)
    ax.set(title=KINDS[result.source], xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
