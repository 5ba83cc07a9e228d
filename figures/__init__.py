"""Draw results: one file per figure of the paper. Nothing here knows a network."""

from figures.correlation import distribution, matrices, scatter
from figures.gradients import gradient_distributions, gradients_along_depth, gradients_along_training
from figures.style import COLOURS, save_figure

__all__ = [
    "COLOURS",
    "distribution",
    "gradient_distributions",
    "gradients_along_depth",
    "gradients_along_training",
    "matrices",
    "save_figure",
    "scatter",
]
