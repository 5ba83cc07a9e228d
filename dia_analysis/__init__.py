"""Measure any torch vision network: capture its attention maps and see how they relate."""

from dia_analysis.capture import Record, Records, capture
from dia_analysis.correlation import (
    CorrelationResult,
    PearsonBetweenLayers,
    StageCorrelation,
    correlate_layers,
    correlate_store,
    pearson,
)
from dia_analysis.errors import AnalysisInputError
from dia_analysis.points import find_points, match_points
from dia_analysis.provenance import Provenance
from dia_analysis.stages import StageMaps, group_stages
from dia_analysis.store import CaptureStore, stream_store
from dia_analysis.store_writer import ImageList, write_store

__all__ = [
    "AnalysisInputError",
    "CaptureStore",
    "CorrelationResult",
    "ImageList",
    "PearsonBetweenLayers",
    "Provenance",
    "Record",
    "Records",
    "StageCorrelation",
    "StageMaps",
    "capture",
    "correlate_layers",
    "correlate_store",
    "find_points",
    "group_stages",
    "match_points",
    "pearson",
    "stream_store",
    "write_store",
]
