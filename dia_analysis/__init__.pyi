from .attention.layer import LayerAttention
from .attention.measure import measure_attention
from .attention.results import AttentionResult
from .attention.rollout import rollout
from .correlation.measure import measure_correlation
from .correlation.results import CorrelationResult, StageCorrelation
from .cost.flops import FlopCount, count_flops, flop_count
from .cost.measure import (
    CostResult,
    NetworkCost,
    Subject,
    count_attention_parameters,
    count_parameters,
    measure_cost,
)
from .errors import AnalysisInputError
from .explain.gradcam import gradcam, stream_gradcam
from .explain.methods import method_names
from .explain.results import GradCAMResult
from .gradients.magnitudes import Magnitudes, MagnitudeStatistics
from .gradients.measure import measure_gradients, network_gradients
from .gradients.results import GradientResult, NetworkGradients, PointGradients
from .importance.measure import GiniCollector, measure_importance
from .importance.results import GiniResult, StageGini
from .probes.capture import Records, capture
from .probes.listing import Point, find_points
from .probes.points import has_attention
from .probes.records import Record
from .probes.stages import StageMaps, group_stages
from .probes.stream import stream_stages
from .results.base import Result
from .results.provenance import Provenance
from .statistics.binary_metrics import Diagnosis, diagnose
from .statistics.pearson import PearsonBetweenLayers, pearson
from .store.reader import CaptureStore, stream_store
from .store.writer import ImageList, write_store
from .trust.agreement import AgreementResult, measure_agreement
from .trust.checks import TrustChecks, TrustReport
from .trust.heatmaps import HeatmapComparison
from .trust.randomization import RandomizationResult, check_randomization
from .trust.road import RoadResult, check_road
from .version import __version__
from .xray.measure import compare_regions, measure_regions
from .xray.regions import NetworkShares, RegionsResult

__all__ = [
    "AgreementResult",
    "AnalysisInputError",
    "AttentionResult",
    "CaptureStore",
    "CorrelationResult",
    "CostResult",
    "Diagnosis",
    "FlopCount",
    "GiniCollector",
    "GiniResult",
    "GradCAMResult",
    "GradientResult",
    "HeatmapComparison",
    "ImageList",
    "LayerAttention",
    "MagnitudeStatistics",
    "Magnitudes",
    "NetworkCost",
    "NetworkGradients",
    "NetworkShares",
    "PearsonBetweenLayers",
    "Point",
    "PointGradients",
    "Provenance",
    "RandomizationResult",
    "Record",
    "Records",
    "RegionsResult",
    "Result",
    "RoadResult",
    "StageCorrelation",
    "StageGini",
    "StageMaps",
    "Subject",
    "TrustChecks",
    "TrustReport",
    "__version__",
    "capture",
    "check_randomization",
    "check_road",
    "compare_regions",
    "count_attention_parameters",
    "count_flops",
    "count_parameters",
    "diagnose",
    "find_points",
    "flop_count",
    "gradcam",
    "group_stages",
    "has_attention",
    "measure_agreement",
    "measure_attention",
    "measure_correlation",
    "measure_cost",
    "measure_gradients",
    "measure_importance",
    "measure_regions",
    "method_names",
    "network_gradients",
    "pearson",
    "rollout",
    "stream_gradcam",
    "stream_stages",
    "stream_store",
    "write_store",
]
