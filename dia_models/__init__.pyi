from .attached import AttachedAttention, attach
from .checkpoint import Checkpoint, CheckpointInfo, load, save_checkpoint
from .checkpoint_files import list_checkpoints
from .errors import ModelInputError
from .models import build_model, create_model, list_models
from .network import ModelSpec, Network
from .pretrained import load_backbone
from .sharing import SharedStage, SharingReport, share

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
