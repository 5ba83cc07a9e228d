from .attention.registry import register
from .checkpoints.backbone_weights import load_backbone
from .checkpoints.checkpoint import Checkpoint, CheckpointInfo, load, save_checkpoint
from .checkpoints.files import list_checkpoints
from .data.sets import open_data
from .errors import ModelInputError
from .factory import build_model, create_model, list_models
from .runs.run import fit
from .spec import ModelSpec, Network
from .surgery.attach import AttachedAttention, attach
from .surgery.fuse import fuse_for_inference
from .surgery.share import SharedStage, SharingReport, share
from .training.config import RunConfig
from .training.recipe import load_recipe
from .version import __version__

__all__ = [
    "AttachedAttention",
    "Checkpoint",
    "CheckpointInfo",
    "ModelInputError",
    "ModelSpec",
    "Network",
    "RunConfig",
    "SharedStage",
    "SharingReport",
    "__version__",
    "attach",
    "build_model",
    "create_model",
    "fit",
    "fuse_for_inference",
    "list_checkpoints",
    "list_models",
    "load",
    "load_backbone",
    "load_recipe",
    "open_data",
    "register",
    "save_checkpoint",
    "share",
]
