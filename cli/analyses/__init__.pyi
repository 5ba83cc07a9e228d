from . import ablate, attention, capture, correlation, cost, gini, gradcam, gradients, points, regions, tables

__all__ = [
    "ablate",
    "attention",
    "capture",
    "correlation",
    "cost",
    "gini",
    "gradcam",
    "gradients",
    "points",
    "regions",
    "tables",
]
