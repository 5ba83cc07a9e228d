"""Pre-activation residual networks for small images, with bottleneck blocks (He et al. 2016b; depth 9n + 2)."""

from functools import partial

from torch import nn

from dia_models.backbones.cifar_resnet import STAGE_CHANNELS, STEM_CHANNELS
from dia_models.backbones.layers import EXPANSION, conv, norm_relu, normal_convolutions
from dia_models.backbones.residual import BlockOptions, ResidualBlock, ResidualNetwork, blocks_per_stage
from dia_models.backbones.stage import AttentionPlan


class PreActivationBottleneck(ResidualBlock):
    """Batch norm and ReLU before each of the 1x1, 3x3 (with the stride) and 1x1 convolutions; nothing after the sum.

    A change of size is made up for by a 1x1 convolution of the block's plain input.
    """

    def __init__(self, options: BlockOptions, in_channels: int, channels: int, stride: int):
        super().__init__()
        width = channels // EXPANSION
        self.branch = nn.Sequential(
            *norm_relu(in_channels, options.batch_norm),
            conv(in_channels, width, 1),
            *norm_relu(width, options.batch_norm),
            conv(width, width, 3, stride),
            *norm_relu(width, options.batch_norm),
            conv(width, channels, 1),
            *([nn.BatchNorm2d(channels)] if options.normalized_branch and options.batch_norm else []),
        )
        same_shape = stride == 1 and in_channels == channels
        shortcut = nn.Identity() if same_shape else conv(in_channels, channels, 1, stride)
        self.shortcut = shortcut if options.skip else None
        self.output = nn.Identity()


def cifar_preresnet(
    plan: AttentionPlan, options: BlockOptions, num_classes: int, in_channels: int, *, depth: int
) -> ResidualNetwork:
    """The widths of `cifar_resnet`; batch norm and ReLU before the mean pool."""
    blocks = blocks_per_stage("cifar_preresnet", depth, 9, 2)
    tail = nn.Sequential(*norm_relu(STAGE_CHANNELS[-1], options.batch_norm))
    stem, block = conv(in_channels, STEM_CHANNELS, 3), partial(PreActivationBottleneck, options)
    model = ResidualNetwork(stem, STEM_CHANNELS, STAGE_CHANNELS, blocks, block, tail, plan, num_classes)
    normal_convolutions(model)
    return model
