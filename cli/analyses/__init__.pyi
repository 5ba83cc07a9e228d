from . import attention, capture, correlation, cost, gini, gradcam, gradients, points, regions, tables

__all__ = ["attention", "capture", "correlation", "cost", "gini", "gradcam", "gradients", "points", "regions", "tables"]
