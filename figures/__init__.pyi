from .anatomy import attention_anatomy
from .correlation import distribution, matrices, scatter
from .cost import cost_ratios
from .gini import triangles
from .gradcam import heatmaps, overlay
from .gradients import gradient_distributions, gradients_along_depth, gradients_along_training
from .pages.report import report
from .regions import region_shares
from .structure import importance_arcs
from .style import COLOURS, save_figure
from .trust import trust_checks

__all__ = [
    "COLOURS",
    "attention_anatomy",
    "cost_ratios",
    "distribution",
    "gradient_distributions",
    "gradients_along_depth",
    "gradients_along_training",
    "heatmaps",
    "importance_arcs",
    "matrices",
    "overlay",
    "region_shares",
    "report",
    "save_figure",
    "scatter",
    "triangles",
    "trust_checks",
]
