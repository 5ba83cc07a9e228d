"""Residual networks for small images, with bottleneck blocks (He et al. 2016; depth 9n + 2)."""

from math import sqrt
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention import AttentionKind
from dia_models.errors import ModelInputError
from dia_models.network import Network
from dia_models.stage import Stage, stage_attention

EXPANSION = 4
STEM_WIDTH = 16
STAGE_WIDTHS = (16, 32, 64)
DEEPEST = 1_999
SMALLEST_IMAGE = 8


def conv_norm(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias, then batch norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
    )


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions, each followed by batch norm; ReLU after the sum.

    Attention acts on the branch after its last batch norm. The block's output is that of its submodule `output`.
    """

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        channels = EXPANSION * width
        self.branch = nn.Sequential(
            *conv_norm(in_channels, width, 1),
            nn.ReLU(inplace=True),
            *conv_norm(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *conv_norm(width, channels, 1),
        )
        same_shape = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same_shape else conv_norm(in_channels, channels, 1, stride)
        self.output = nn.ReLU(inplace=True)

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        attention: nn.Module | None = None,
        state: Any = None,
    ) -> tuple[Float[Tensor, "batch out h w"], Any]:
        """Give the block's output and the attention's new state."""
        branch, shortcut = self.branch(x), self.shortcut(x)
        total, state = (branch + shortcut, state) if attention is None else attention(branch, shortcut, state)
        return self.output(total), state


class CifarResNet(Network):
    """Stem, three stages of (depth - 2) / 9 bottleneck blocks with 64, 128 and 256 channels, mean pool, classifier.

    Takes images (batch, in_channels, height, width) of at least 8x8, gives logits (batch, num_classes).
    Convolutions start as N(0, 2 / (k² · out)), batch norms as identity, linear layers as torch's default.
    """

    def __init__(self, depth: int, attention: AttentionKind | None, num_classes: int, in_channels: int, **options: Any):
        super().__init__()
        blocks = blocks_per_stage(depth)
        self.stem = nn.Sequential(*conv_norm(in_channels, STEM_WIDTH, 3), nn.ReLU(inplace=True))
        self.stages = nn.Sequential()
        channels = STEM_WIDTH
        for width in STAGE_WIDTHS:
            strides = [1 if width == STAGE_WIDTHS[0] else 2] + [1] * (blocks - 1)
            inputs = [channels] + [EXPANSION * width] * (blocks - 1)
            channels = EXPANSION * width
            self.stages.append(
                Stage(
                    [Bottleneck(i, width, s) for i, s in zip(inputs, strides, strict=True)],
                    stage_attention(attention, channels, blocks, **options),
                )
            )
        self.classifier = nn.Linear(channels, num_classes)
        _initialise_convolutions(self)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
        """Give the logits. Raises ModelInputError for images smaller than 8x8."""
        if min(images.shape[-2:]) < SMALLEST_IMAGE:
            raise ModelInputError(
                "images",
                f"images of {images.shape[-2]}x{images.shape[-1]} are too small; at least 8x8 is needed",
            )
        features = self.stages(self.stem(images))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


def blocks_per_stage(depth: int) -> int:
    """(depth - 2) / 9. Raises ModelInputError, naming the nearest valid depths, if that is no whole number."""
    blocks, rest = divmod(depth - 2, 9)
    if rest == 0 and 11 <= depth <= DEEPEST:
        return blocks
    most = (DEEPEST - 2) // 9
    nearest = [9 * n + 2 for n in sorted({min(max(n, 1), most) for n in (blocks, blocks + 1)})]
    raise ModelInputError(
        "model",
        f"cifar_resnet{depth}: the depth must be 9n + 2, from 11 to {DEEPEST}; "
        f"nearest: {' or '.join(f'cifar_resnet{d}' for d in nearest)}",
    )


def _initialise_convolutions(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, sqrt(2.0 / fan_out))
