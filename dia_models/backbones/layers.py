"""The layers that residual networks are made of, and how they start."""

from math import sqrt

from torch import nn

EXPANSION = 4
"""A bottleneck block's channels over those of its 3x3 convolution."""


def conv(in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size, up to its stride."""
    return nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def conv_norm(conv: nn.Conv2d, batch_norm: bool = True) -> nn.Sequential:
    """A convolution, then batch norm if there is to be any."""
    return nn.Sequential(conv, *([nn.BatchNorm2d(conv.out_channels)] if batch_norm else []))


def norm_relu(channels: int, batch_norm: bool) -> list[nn.Module]:
    """Batch norm, if there is to be any, and a ReLU that leaves its input alone: the shortcut still needs it."""
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)] if batch_norm else [nn.ReLU()]


def shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    """The identity, or a 1x1 convolution with batch norm where a block changes the size."""
    same_shape = stride == 1 and in_channels == channels
    return nn.Identity() if same_shape else conv_norm(conv(in_channels, channels, 1, stride))


def normal_convolutions(model: nn.Module) -> None:
    """Start convolutions as N(0, 2 / (k² · out)), as in the public CIFAR code."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # slow there, and to no end
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, sqrt(2.0 / fan_out))


def zero_linear_biases(model: nn.Module) -> None:
    """Start the biases of all linear layers, also those of attention modules, at zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
