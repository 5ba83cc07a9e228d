"""The attention modules, one file each."""

from dia_models.attention.base import Attention, ChannelAttention
from dia_models.attention.convolutional_block import ConvolutionalBlock
from dia_models.attention.dia_lstm import DIALSTM, DIALSTMLight
from dia_models.attention.efficient_channel import EfficientChannel
from dia_models.attention.mix_pooling import MixPooling
from dia_models.attention.registry import (
    About,
    AttentionKind,
    attention_kind,
    attention_names,
    attention_table,
    register,
)
from dia_models.attention.spatial_group import SpatialGroup
from dia_models.attention.spatial_pyramid import SpatialPyramid
from dia_models.attention.squeeze_excitation import SqueezeExcitation
from dia_models.attention.style_recalibration import StyleRecalibration
from dia_models.attention.switchable import Switchable

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
    "attention_table",
    "register",
]
