"""Measure any torch vision network: capture its attention maps and see how they relate."""

from dia_analysis.capture import Record, Records, capture
from dia_analysis.correlation import (
    CorrelationResult,
    PearsonBetweenLayers,
    StageCorrelation,
    correlate_layers,
    pearson,
)
from dia_analysis.cost import (
    CostResult,
    NetworkCost,
    Subject,
    count_attention_parameters,
    count_flops,
    count_parameters,
    measure_cost,
)
from dia_analysis.errors import AnalysisInputError
from dia_analysis.gradient_results import GradientResult, NetworkGradients, PointGradients
from dia_analysis.gradients import measure_gradients, network_gradients
from dia_analysis.magnitudes import Magnitudes, MagnitudeStatistics
from dia_analysis.points import find_points, match_points
from dia_analysis.provenance import Provenance
from dia_analysis.stages import StageMaps, group_stages

__all__ = [
    "AnalysisInputError",
    "CorrelationResult",
    "CostResult",
    "GradientResult",
    "MagnitudeStatistics",
    "Magnitudes",
    "NetworkCost",
    "NetworkGradients",
    "PearsonBetweenLayers",
    "PointGradients",
    "Provenance",
    "Record",
    "Records",
    "StageCorrelation",
    "StageMaps",
    "Subject",
    "capture",
    "correlate_layers",
    "count_attention_parameters",
    "count_flops",
    "count_parameters",
    "find_points",
    "group_stages",
    "match_points",
    "measure_cost",
    "measure_gradients",
    "network_gradients",
    "pearson",
]
