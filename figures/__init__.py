"""Draw results: one file per figure of the paper. Nothing here knows a network."""

from figures.anatomy import anatomy
from figures.correlation import distribution, matrices, scatter
from figures.gini import triangles
from figures.gradcam import heatmaps, overlay
from figures.style import save_figure
from figures.trust import trust

__all__ = ["anatomy", "distribution", "heatmaps", "matrices", "overlay", "save_figure", "scatter", "triangles", "trust"]
from figures.cost import cost_ratios
from figures.gradients import gradient_distributions, gradients_along_depth, gradients_along_training
from figures.regions import regions
from figures.style import COLOURS

__all__ = [
    "COLOURS",
    "cost_ratios",
    "distribution",
    "gradient_distributions",
    "gradients_along_depth",
    "gradients_along_training",
    "matrices",
    "regions",
    "save_figure",
    "scatter",
]
