"""Measure any torch vision network: capture its attention maps and see how they relate; see what it looks at."""

from dia_analysis.agreement import AgreementResult, agreement
from dia_analysis.cam_methods import method_names
from dia_analysis.cam_result import GradCAMResult
from dia_analysis.capture import Record, Records, capture
from dia_analysis.correlation import (
    CorrelationResult,
    PearsonBetweenLayers,
    StageCorrelation,
    correlate_layers,
    correlate_store,
    pearson,
)
from dia_analysis.cost import (
    CostResult,
    NetworkCost,
    Subject,
    count_attention_parameters,
    count_parameters,
    measure_cost,
)
from dia_analysis.errors import AnalysisInputError
from dia_analysis.flops import FlopCount, count_flops, flop_count
from dia_analysis.gini import GiniCollector, GiniResult, StageGini, gini_importance
from dia_analysis.gradcam import gradcam, stream_gradcam
from dia_analysis.gradient_results import GradientResult, NetworkGradients, PointGradients
from dia_analysis.gradients import measure_gradients, network_gradients
from dia_analysis.magnitudes import Magnitudes, MagnitudeStatistics
from dia_analysis.points import find_points, match_points
from dia_analysis.provenance import Provenance
from dia_analysis.randomisation import RandomisationResult, randomisation_check
from dia_analysis.regions import NetworkShares, RegionsResult
from dia_analysis.road import RoadResult, road_check
from dia_analysis.stages import StageMaps, group_stages
from dia_analysis.store import CaptureStore, stream_store
from dia_analysis.store_writer import ImageList, write_store
from dia_analysis.verdict import TrustChecks

__all__ = [
    "AgreementResult",
    "AnalysisInputError",
    "CaptureStore",
    "CorrelationResult",
    "CostResult",
    "FlopCount",
    "GiniCollector",
    "GiniResult",
    "GradCAMResult",
    "GradientResult",
    "ImageList",
    "MagnitudeStatistics",
    "Magnitudes",
    "NetworkCost",
    "NetworkGradients",
    "NetworkShares",
    "PearsonBetweenLayers",
    "PointGradients",
    "Provenance",
    "RandomisationResult",
    "Record",
    "Records",
    "RegionsResult",
    "RoadResult",
    "StageCorrelation",
    "StageGini",
    "StageMaps",
    "Subject",
    "TrustChecks",
    "agreement",
    "capture",
    "correlate_layers",
    "correlate_store",
    "count_attention_parameters",
    "count_flops",
    "count_parameters",
    "find_points",
    "flop_count",
    "gini_importance",
    "gradcam",
    "group_stages",
    "match_points",
    "measure_cost",
    "measure_gradients",
    "method_names",
    "network_gradients",
    "pearson",
    "randomisation_check",
    "road_check",
    "stream_gradcam",
    "stream_store",
    "write_store",
]
