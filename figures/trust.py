"""How far a network's heatmaps can be trusted: destroyed weights, removed evidence."""

from matplotlib.figure import Figure

from dia_analysis import DeletionResult, RandomisationResult
from figures.style import COLUMN, styled


@styled
def trust(randomisation: RandomisationResult, deletion: DeletionResult) -> Figure:
    """Draw both checks of one network side by side."""
    figure = Figure(figsize=(COLUMN, COLUMN * 0.78), layout="constrained")
    left, right = figure.subplots(1, 2)
    randomisation.plot(left)
    left.set_title("Weights destroyed")
    deletion.plot(right)
    right.set_title("Evidence removed")
    for ax, side in ((left, "left"), (right, "right")):
        ax.get_legend().remove()
        figure.legend(*ax.get_legend_handles_labels(), loc=f"outside lower {side}")
    return figure
