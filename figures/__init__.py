"""Draw results: one file per figure of the paper. Nothing here knows a network."""

from figures.correlation import distribution, matrices, scatter
from figures.cost import cost_ratios
from figures.gradients import gradient_distributions, gradients_along_depth, gradients_along_training
from figures.style import COLOURS, save_figure

__all__ = [
    "COLOURS",
    "cost_ratios",
    "distribution",
    "gradient_distributions",
    "gradients_along_depth",
    "gradients_along_training",
    "matrices",
    "save_figure",
    "scatter",
]
