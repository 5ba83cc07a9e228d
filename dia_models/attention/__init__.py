"""The attention modules, one file each."""

from dia_models.attention.dia_lstm import DIALSTM
from dia_models.attention.efficient_channel import EfficientChannel
from dia_models.attention.registry import AttentionKind, attention_kind, attention_names, register
from dia_models.attention.squeeze_excitation import SqueezeExcitation

__all__ = [
    "DIALSTM",
    "AttentionKind",
    "EfficientChannel",
    "SqueezeExcitation",
    "attention_kind",
    "attention_names",
    "register",
]
