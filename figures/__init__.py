"""Draw results: one file per figure of the paper. Nothing here knows a network."""

from figures.anatomy import anatomy
from figures.correlation import distribution, matrices, scatter
from figures.cost import cost_ratios
from figures.gini import triangles
from figures.gradcam import heatmaps, overlay
from figures.gradients import gradient_distributions, gradients_along_depth, gradients_along_training
from figures.regions import regions
from figures.structure import structure
from figures.style import COLOURS, save_figure
from figures.trust import trust

__all__ = [
    "COLOURS",
    "anatomy",
    "cost_ratios",
    "distribution",
    "gradient_distributions",
    "gradients_along_depth",
    "gradients_along_training",
    "heatmaps",
    "matrices",
    "overlay",
    "regions",
    "save_figure",
    "scatter",
    "structure",
    "triangles",
    "trust",
]
