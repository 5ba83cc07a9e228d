"""Measure any torch vision network: capture its attention maps and see how they relate."""

from dia_analysis.capture import Record, Records, capture
from dia_analysis.correlation import (
    CorrelationResult,
    PearsonBetweenLayers,
    StageCorrelation,
    correlate_layers,
    pearson,
)
from dia_analysis.errors import AnalysisInputError
from dia_analysis.gini import GiniCollector, GiniResult, StageGini, gini_importance
from dia_analysis.points import find_points, match_points
from dia_analysis.provenance import Provenance
from dia_analysis.stages import StageMaps, group_stages

__all__ = [
    "AnalysisInputError",
    "CorrelationResult",
    "GiniCollector",
    "GiniResult",
    "PearsonBetweenLayers",
    "Provenance",
    "Record",
    "Records",
    "StageCorrelation",
    "StageGini",
    "StageMaps",
    "capture",
    "correlate_layers",
    "find_points",
    "gini_importance",
    "group_stages",
    "match_points",
    "pearson",
]
