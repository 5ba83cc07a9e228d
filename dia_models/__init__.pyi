from .attention.registry import register
from .checkpoints.backbone_weights import load_backbone
from .checkpoints.checkpoint import Checkpoint, CheckpointInfo, load, save_checkpoint
from .checkpoints.files import list_checkpoints
from .classification.evaluated import EvaluatedClassifier, evaluate_classifier
from .data.sets import open_data
from .detection.evaluated import EvaluatedDetector, evaluate_detector
from .errors import ModelInputError
from .factory import build_model, create_model, list_models
from .generation.generated import GeneratedImages, generate_images
from .networks.open_network import open_network
from .networks.opened import OpenedNetwork
from .runs.configure import configure
from .runs.run import fit
from .spec import ModelSpec, Network
from .surgery.attach import AttachedAttention, attach
from .surgery.fold import Folding, fold_attention
from .surgery.fuse import fuse_for_inference
from .surgery.share import SharedStage, SharingReport, share
from .sweeps.folder import SweepFolder
from .training.config import RunConfig
from .training.recipe import load_recipe
from .version import __version__

__all__ = [
    "AttachedAttention",
    "Checkpoint",
    "CheckpointInfo",
    "EvaluatedClassifier",
    "EvaluatedDetector",
    "Folding",
    "GeneratedImages",
    "ModelInputError",
    "ModelSpec",
    "Network",
    "OpenedNetwork",
    "RunConfig",
    "SharedStage",
    "SharingReport",
    "SweepFolder",
    "__version__",
    "attach",
    "build_model",
    "configure",
    "create_model",
    "evaluate_classifier",
    "evaluate_detector",
    "fit",
    "fold_attention",
    "fuse_for_inference",
    "generate_images",
    "list_checkpoints",
    "list_models",
    "load",
    "load_backbone",
    "load_recipe",
    "open_data",
    "open_network",
    "register",
    "save_checkpoint",
    "share",
]
