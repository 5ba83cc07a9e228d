from .anatomy import attention_anatomy
from .correlation import distribution, matrices, scatter
from .correlation_parts import across_networks, correlation_parts, distance_profile, stripes
from .cost import cost_ratios
from .gini import triangles
from .gradcam import heatmaps
from .gradients import gradient_distributions, gradients_along_depth, gradients_along_training
from .of_correlation import correlation_figures
from .of_result import paper_figures
from .pages.report import report
from .regions import region_shares
from .structure import importance_arcs
from .trust import trust_checks

__all__ = [
    "across_networks",
    "attention_anatomy",
    "correlation_figures",
    "correlation_parts",
    "cost_ratios",
    "distance_profile",
    "distribution",
    "gradient_distributions",
    "gradients_along_depth",
    "gradients_along_training",
    "heatmaps",
    "importance_arcs",
    "matrices",
    "paper_figures",
    "region_shares",
    "report",
    "scatter",
    "stripes",
    "triangles",
    "trust_checks",
]
