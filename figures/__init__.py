"""Draw results: one file per figure of the paper. Nothing here knows a network."""

from figures.correlation import distribution, matrices, scatter
from figures.gini import triangles
from figures.style import save_figure

__all__ = ["distribution", "matrices", "save_figure", "scatter", "triangles"]
