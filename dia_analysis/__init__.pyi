from .ablation.measure import measure_ablation
from .ablation.results import Ablation, AblationResult, NetworkAblation
from .attention.layer import LayerAttention
from .attention.measure import measure_attention
from .attention.results import AttentionResult
from .attention.rollout import gradient_rollout, rollout
from .correlation.measure import measure_correlation
from .correlation.results import CorrelationResult, StageCorrelation
from .cost.flops import count_flops
from .cost.measure import (
    CostResult,
    NetworkCost,
    Subject,
    measure_cost,
)
from .errors import AnalysisInputError
from .explain.gradcam import gradcam, stream_gradcam
from .explain.methods import method_names
from .explain.results import GradCAMResult
from .folding.results import FoldingResult
from .gradients.magnitudes import Magnitudes, MagnitudeStatistics
from .gradients.measure import measure_gradients, network_gradients
from .gradients.monitor import GradientMonitor
from .gradients.results import GradientResult, NetworkGradients, PointGradients
from .importance.measure import GiniCollector, measure_importance
from .importance.results import GiniResult, StageGini
from .paper.read_sweeps import read_sweeps
from .paper.sweeps import SweepResult
from .probes.capture import Records, capture
from .probes.listing import Point, find_points
from .probes.points import has_attention
from .probes.records import Record
from .probes.stages import StageMaps
from .probes.stream import stream_stages
from .results.base import Result
from .results.provenance import Provenance
from .statistics.binary_metrics import Diagnosis, diagnose
from .statistics.pearson import PearsonBetweenLayers, pearson
from .store.reader import CaptureStore
from .store.writer import ImageList, write_store
from .trust.agreement import AgreementResult, measure_agreement
from .trust.checks import TrustChecks, TrustReport
from .trust.heatmaps import HeatmapComparison
from .trust.randomization import RandomizationResult, check_randomization
from .trust.road import RoadResult, check_road
from .version import __version__
from .xray.diagnosis import TwoClassResult
from .xray.findings import FindingReadings, FindingsResult, assess_findings
from .xray.measure import compare_regions, measure_regions
from .xray.regions import NetworkShares, RegionsResult

__all__ = [
    "Ablation",
    "AblationResult",
    "AgreementResult",
    "AnalysisInputError",
    "AttentionResult",
    "CaptureStore",
    "CorrelationResult",
    "CostResult",
    "Diagnosis",
    "FindingReadings",
    "FindingsResult",
    "FoldingResult",
    "GiniCollector",
    "GiniResult",
    "GradCAMResult",
    "GradientMonitor",
    "GradientResult",
    "HeatmapComparison",
    "ImageList",
    "LayerAttention",
    "MagnitudeStatistics",
    "Magnitudes",
    "NetworkAblation",
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
    "SweepResult",
    "TrustChecks",
    "TrustReport",
    "TwoClassResult",
    "__version__",
    "assess_findings",
    "capture",
    "check_randomization",
    "check_road",
    "compare_regions",
    "count_flops",
    "diagnose",
    "find_points",
    "gradcam",
    "gradient_rollout",
    "has_attention",
    "measure_ablation",
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
    "read_sweeps",
    "rollout",
    "stream_gradcam",
    "stream_stages",
    "write_store",
]
