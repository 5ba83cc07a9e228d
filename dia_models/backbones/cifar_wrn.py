"""Wide residual networks for small images (Zagoruyko and Komodakis 2016; depth 6n + 4)."""

from functools import partial

from torch import nn

from dia_models.backbones.layers import conv, norm_relu, normal_convolutions, zero_linear_biases
from dia_models.backbones.residual import BlockOptions, Features, ResidualBlock, ResidualNetwork, blocks_per_stage
from dia_models.backbones.stage import AttentionPlan

STEM_CHANNELS = 16
DROPOUT = 0.3


class WideBasic(ResidualBlock):
    """Two 3x3 convolutions, batch norm and ReLU before each, dropout between them; nothing after the sum.

    A change of size is made up for by a 1x1 convolution of the input after its batch norm and ReLU.
    """

    def __init__(self, options: BlockOptions, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.prepare = nn.Sequential(*norm_relu(in_channels, options.batch_norm))
        self.branch = nn.Sequential(
            conv(in_channels, channels, 3, stride),
            *norm_relu(channels, options.batch_norm),
            nn.Dropout(DROPOUT),
            conv(channels, channels, 3),
            *([nn.BatchNorm2d(channels)] if options.normalized_branch and options.batch_norm else []),
        )
        self.projects = in_channels != channels
        shortcut = conv(in_channels, channels, 1, stride) if self.projects else nn.Identity()
        self.shortcut = shortcut if options.skip else None
        self.output = nn.Identity()

    def paths(self, x: Features) -> tuple[Features, Features | None]:
        """The branch's and the shortcut's result."""
        prepared = self.prepare(x)
        shortcut = None if self.shortcut is None else self.shortcut(prepared if self.projects else x)
        return self.branch(prepared), shortcut


def cifar_wrn(
    plan: AttentionPlan, options: BlockOptions, num_classes: int, in_channels: int, *, depth: int, width: int
) -> ResidualNetwork:
    """Three stages of (depth - 4) / 6 blocks with 16, 32 and 64 channels times `width`."""
    blocks = blocks_per_stage("cifar_wrn", depth, 6, 4)
    channels = [width * c for c in (16, 32, 64)]
    tail = nn.Sequential(*norm_relu(channels[-1], options.batch_norm))
    stem, block = conv(in_channels, STEM_CHANNELS, 3), partial(WideBasic, options)
    model = ResidualNetwork(stem, STEM_CHANNELS, channels, blocks, block, tail, plan, num_classes)
    normal_convolutions(model)
    zero_linear_biases(model)
    return model
