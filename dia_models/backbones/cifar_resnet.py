"""Residual networks for small images, with bottleneck blocks (He et al. 2016; depth 9n + 2)."""

from functools import partial

from torch import nn

from dia_models.backbones.layers import EXPANSION, conv, conv_norm, normal_convolutions, shortcut
from dia_models.backbones.residual import BlockOptions, ResidualBlock, ResidualNetwork, blocks_per_stage
from dia_models.backbones.stage import AttentionPlan

STEM_CHANNELS = 16
STAGE_CHANNELS = (64, 128, 256)


class Bottleneck(ResidualBlock):
    """1x1, 3x3 (with the stride), 1x1 convolutions, each followed by batch norm; ReLU after the sum.

    Attention acts on the branch after its last batch norm. Without batch norm, that of the shortcut stays.
    """

    def __init__(self, options: BlockOptions, in_channels: int, channels: int, stride: int):
        super().__init__()
        width = channels // EXPANSION
        self.branch = nn.Sequential(
            *conv_norm(conv(in_channels, width, 1), options.batch_norm),
            nn.ReLU(inplace=True),
            *conv_norm(conv(width, width, 3, stride), options.batch_norm),
            nn.ReLU(inplace=True),
            *conv_norm(conv(width, channels, 1), options.batch_norm),
        )
        self.shortcut = shortcut(in_channels, channels, stride) if options.skip else None
        self.output = nn.ReLU(inplace=True)


def cifar_resnet(
    plan: AttentionPlan, options: BlockOptions, num_classes: int, in_channels: int, *, depth: int
) -> ResidualNetwork:
    """Stem of 16 channels, three stages of (depth - 2) / 9 blocks with 64, 128 and 256 channels."""
    stem = nn.Sequential(*conv_norm(conv(in_channels, STEM_CHANNELS, 3), options.batch_norm), nn.ReLU(inplace=True))
    blocks = blocks_per_stage("cifar_resnet", depth, 9, 2)
    block = partial(Bottleneck, options)
    model = ResidualNetwork(stem, STEM_CHANNELS, STAGE_CHANNELS, blocks, block, nn.Identity(), plan, num_classes)
    normal_convolutions(model)
    return model
