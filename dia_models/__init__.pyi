from .checkpoints.backbone_weights import load_backbone
from .checkpoints.checkpoint import Checkpoint, CheckpointInfo, load, save_checkpoint
from .checkpoints.files import list_checkpoints
from .classification.evaluated import EvaluatedClassifier, evaluate_checkpoint
from .detection.evaluated import EvaluatedDetector, evaluate_detector
from .errors import ModelInputError
from .factory import build_model, create_model, list_models
from .generation.generated import GeneratedImages, generate_images
from .runs.configure import configure
from .spec import ModelSpec, Network
from .surgery.attach import AttachedAttention, attach
from .surgery.share import SharedStage, SharingReport, share
from .sweeps.folder import SweepFolder

__all__ = [
    "AttachedAttention",
    "Checkpoint",
    "CheckpointInfo",
    "EvaluatedClassifier",
    "EvaluatedDetector",
    "GeneratedImages",
    "ModelInputError",
    "ModelSpec",
    "Network",
    "SharedStage",
    "SharingReport",
    "SweepFolder",
    "attach",
    "build_model",
    "configure",
    "create_model",
    "evaluate_checkpoint",
    "evaluate_detector",
    "generate_images",
    "list_checkpoints",
    "list_models",
    "load",
    "load_backbone",
    "save_checkpoint",
    "share",
]
