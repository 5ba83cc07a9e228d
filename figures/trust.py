"""How far a network's heatmaps can be trusted: destroyed weights, removed evidence."""

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dia_analysis import RandomizationResult, RoadResult
from dia_analysis.results.style import COLUMN, styled


@styled
def trust_checks(randomization: RandomizationResult, road: RoadResult) -> Figure:
    """Draw both checks of one network side by side."""
    figure = Figure(figsize=(COLUMN, COLUMN * 0.78), layout="constrained")
    left, right = figure.subplots(1, 2)
    randomization.draw(left)
    left.set_title("Weights destroyed")
    road.draw(right)
    right.set_title("Evidence removed")
    _legend(figure, left, "outside lower left")
    _legend(figure, right, "outside lower right")
    return figure


def _legend(figure: Figure, ax: Axes, where: Literal["outside lower left", "outside lower right"]) -> None:
    """Put the legend below, where it hides nothing."""
    if (own := ax.get_legend()) is not None:
        own.remove()
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc=where)
