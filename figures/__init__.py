"""Draw results: one file per figure of the paper. Nothing here knows a network."""

from figures.anatomy import anatomy
from figures.correlation import distribution, matrices, scatter
from figures.style import save_figure

__all__ = ["anatomy", "distribution", "matrices", "save_figure", "scatter"]
