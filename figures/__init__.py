"""Draw results: one file per figure of the paper. Nothing here knows a network."""

from figures.anatomy import anatomy
from figures.correlation import distribution, matrices, scatter
from figures.gini import triangles
from figures.gradcam import heatmaps, overlay
from figures.style import save_figure
from figures.trust import trust

__all__ = ["anatomy", "distribution", "heatmaps", "matrices", "overlay", "save_figure", "scatter", "triangles", "trust"]
