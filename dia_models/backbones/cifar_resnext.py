"""ResNeXt for small images (Xie et al. 2017): bottleneck blocks whose 3x3 convolution is split into groups."""

from functools import partial

from torch import nn

from dia_models.backbones.layers import conv, conv_norm, shortcut, zero_linear_biases
from dia_models.backbones.residual import BlockOptions, ResidualBlock, ResidualNetwork
from dia_models.backbones.stage import AttentionPlan

STEM_CHANNELS = 32
STAGE_CHANNELS = (128, 256, 512)
BLOCKS = 11
GROUPS = 8


class GroupedBottleneck(ResidualBlock):
    """1x1, grouped 3x3 (with the stride), 1x1 convolutions, twice as wide inside; ReLU after the sum."""

    def __init__(self, options: BlockOptions, in_channels: int, channels: int, stride: int):
        super().__init__()
        width = 2 * channels
        self.branch = nn.Sequential(
            *conv_norm(conv(in_channels, width, 1), options.batch_norm),
            nn.ReLU(inplace=True),
            *conv_norm(conv(width, width, 3, stride, GROUPS), options.batch_norm),
            nn.ReLU(inplace=True),
            *conv_norm(conv(width, channels, 1), options.batch_norm),
        )
        self.shortcut = shortcut(in_channels, channels, stride) if options.skip else None
        self.output = nn.ReLU(inplace=True)


def cifar_resnext101_8x32(
    plan: AttentionPlan, options: BlockOptions, num_classes: int, in_channels: int
) -> ResidualNetwork:
    """Three stages of 11 blocks with 128, 256 and 512 channels, 8 groups."""
    stem = nn.Sequential(*conv_norm(conv(in_channels, STEM_CHANNELS, 3), options.batch_norm), nn.ReLU(inplace=True))
    block = partial(GroupedBottleneck, options)
    model = ResidualNetwork(stem, STEM_CHANNELS, STAGE_CHANNELS, BLOCKS, block, nn.Identity(), plan, num_classes)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    zero_linear_biases(model)
    return model
