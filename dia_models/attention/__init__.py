"""The attention modules, one file each."""

from dia_models.attention.base import Attention, ChannelAttention
from dia_models.attention.cbam import ConvolutionalBlock
from dia_models.attention.dia_lstm import DIALSTM, DIALSTMLight
from dia_models.attention.eca import EfficientChannel
from dia_models.attention.registry import (
    About,
    AttentionKind,
    attention_kind,
    attention_names,
    attention_rows,
    attention_table,
    register,
)
from dia_models.attention.se import SqueezeExcitation
from dia_models.attention.sem import Switchable
from dia_models.attention.sge import SpatialGroup
from dia_models.attention.spa import SpatialPyramid
from dia_models.attention.spem import MixPooling
from dia_models.attention.srm import StyleRecalibration

__all__ = [
    "DIALSTM",
    "About",
    "Attention",
    "AttentionKind",
    "ChannelAttention",
    "ConvolutionalBlock",
    "DIALSTMLight",
    "EfficientChannel",
    "MixPooling",
    "SpatialGroup",
    "SpatialPyramid",
    "SqueezeExcitation",
    "StyleRecalibration",
    "Switchable",
    "attention_kind",
    "attention_names",
    "attention_rows",
    "attention_table",
    "register",
]
