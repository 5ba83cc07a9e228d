"""Build, train, save and load attention networks: individual modules, shared ones (DIA) and DIA-LSTM."""

from dia_models.attached import AttachedAttention, attach
from dia_models.checkpoint import Checkpoint, CheckpointInfo, list_checkpoints, load, save_checkpoint
from dia_models.errors import ModelInputError
from dia_models.models import build_model, create_model, list_models
from dia_models.network import ModelSpec, Network
from dia_models.pretrained import load_backbone
from dia_models.sharing import SharedStage, SharingReport, share

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
