"""How the distributions of gradients are drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from dia_analysis.gradients.seeds import OverSeeds
from dia_analysis.results.style import COLORS, logarithmic

if TYPE_CHECKING:
    from dia_analysis.gradients.results import PointGradients

DRAWN_PER_DECADE = 10
LINES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def draw_stage(ax: Axes, groups: Sequence[OverSeeds], index: int) -> None:
    """Draw one stage's distributions of the absolute gradient on a log axis, one color per network.

    Several seeds of a network share its color. Zeros and values that are not finite have no place on this axis; their
    shares stand beside it. The axis, which is the same for all stages, leaves out the smallest 0.1 %.
    """
    having = [group for group in groups if index < len(group.stages)]
    for group, style in zip(groups, line_styles(len(groups)), strict=True):
        if group in having:
            _draw_distributions(ax, [network.stages[index] for network in group.networks], group.label, style)
    _note_missing(ax, having, index)
    ax.set(yticks=[], ylim=(0, None))
    ax.spines["left"].set_visible(False)
    _scale(ax, [stage for group in groups for network in group.networks for stage in network.stages])


def line_styles(count: int) -> list[dict[str, Any]]:
    """A color, and after the last color another kind of line; each with a marker of its own."""
    rounds = [(line, color, marker) for line in LINES for color, marker in zip(COLORS, MARKERS, strict=True)]
    if count > len(rounds):
        raise ValueError(f"{count} networks cannot be told apart in one figure; draw at most {len(rounds)}")
    return [{"ls": line, "color": color, "marker": marker} for line, color, marker in rounds[:count]]


def _draw_distributions(ax: Axes, points: Sequence["PointGradients"], name: str, style: dict[str, Any]) -> None:
    """One stage of a network, for each seed; the label stands for all."""
    line = {"color": style["color"], "ls": style["ls"]}
    ax.plot([], [], label=name, **line)
    for point in points:
        counts, edges = point.magnitudes.binned(DRAWN_PER_DECADE)
        if len(counts):
            heights = counts / counts.max()
            ax.stairs(heights, 10.0**edges, fill=True, color=style["color"], alpha=0.2 / len(points))
            ax.stairs(heights, 10.0**edges, lw=1.0 if len(points) == 1 else 0.5, **line)
            ax.axvline(float(point.magnitudes.mean or 0), lw=0.8 if len(points) == 1 else 0.5, **line)


def _scale(ax: Axes, stages: Sequence["PointGradients"]) -> None:
    """A log axis that shows the distributions, if there is any: gradients may all be zero."""
    low = [value for stage in stages if (value := stage.magnitudes.quantile(0.001) or stage.magnitudes.smallest)]
    high = [value for stage in stages if (value := stage.magnitudes.largest)]
    if low:
        ax.set_xscale("log")
        logarithmic(ax.xaxis)
        ax.set_xlim(min(low) / 2, max(high) * 2)


def _note_missing(ax: Axes, groups: Sequence[OverSeeds], index: int) -> None:
    notes = []
    for group in groups:
        stage = group.stages[index]
        found = [network.stages[index].magnitudes for network in group.networks]
        total = sum(m.count + m.nonfinite for m in found)
        notes += [f"{group.label}: {stage.zeros / total:.2%} zero"] if stage.zeros else []
        notes += [f"{group.label}: {stage.nonfinite / total:.2%} not finite"] if stage.nonfinite else []
    ax.text(0.01, 0.95, "\n".join(notes), transform=ax.transAxes, fontsize=5, va="top")
