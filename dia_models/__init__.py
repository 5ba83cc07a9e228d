"""Build, train, save and load attention networks: individual modules, shared ones (DIA) and DIA-LSTM."""

from dia_models.checkpoint import Checkpoint, CheckpointInfo, list_checkpoints, load, save_checkpoint
from dia_models.errors import ModelInputError
from dia_models.models import build_model, create_model, list_models
from dia_models.network import ModelSpec, Network
from dia_models.pretrained import load_backbone

__all__ = [
    "Checkpoint",
    "CheckpointInfo",
    "ModelInputError",
    "ModelSpec",
    "Network",
    "build_model",
    "create_model",
    "list_checkpoints",
    "list_models",
    "load",
    "load_backbone",
    "save_checkpoint",
]
