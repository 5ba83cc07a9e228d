from .checkpoints.backbone_weights import load_backbone
from .checkpoints.checkpoint import Checkpoint, CheckpointInfo, load, save_checkpoint
from .checkpoints.files import list_checkpoints
from .errors import ModelInputError
from .factory import build_model, create_model, list_models
from .spec import ModelSpec, Network
from .surgery.attach import AttachedAttention, attach
from .surgery.share import SharedStage, SharingReport, share

__all__ = [
    "AttachedAttention",
    "Checkpoint",
    "CheckpointInfo",
    "ModelInputError",
    "ModelSpec",
    "Network",
    "SharedStage",
    "SharingReport",
    "attach",
    "build_model",
    "create_model",
    "list_checkpoints",
    "list_models",
    "load",
    "load_backbone",
    "save_checkpoint",
    "share",
]
