from . import capture, correlation, cost, gini, gradcam, gradients, regions, tables

__all__ = ["capture", "correlation", "cost", "gini", "gradcam", "gradients", "regions", "tables"]
