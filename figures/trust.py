"""How far a network's heatmaps can be trusted: destroyed weights, removed evidence."""

from matplotlib.figure import Figure

from dia_analysis import DeletionResult, RandomisationResult
from figures.style import COLUMN, styled


@styled
def trust(randomisation: RandomisationResult, deletion: DeletionResult) -> Figure:
    """Draw both checks of one network side by side."""
    figure = Figure(figsize=(COLUMN, COLUMN * 0.72), layout="constrained")
    left, right = figure.subplots(1, 2)
    randomisation.plot(left)
    left.set_title("Weights destroyed")
    deletion.plot(right)
    right.set_title("Evidence removed or brought back")
    for ax in (left, right):
        ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.32))
    return figure
