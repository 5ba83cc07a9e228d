"""Residual networks for images of ImageNet's size (He et al. 2016), of torchvision's blocks and with its names.

Their backbones have the names, shapes and outputs of torchvision's, so that its pretrained weights load as they are
(`load_backbone`); what attention adds has names of its own, `layer1.attention` to `layer4.attention`.
"""

from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet

from dia_models.backbones.layers import conv
from dia_models.backbones.residual import BlockOptions, Features, ResidualBlock
from dia_models.backbones.stage import AttentionPlan
from dia_models.errors import ModelInputError
from dia_models.spec import Network

WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
FIRST_BOTTLENECK = 50


class TorchvisionBlock(ResidualBlock):
    """A block with torchvision's parts, `conv1`, `bn1` and so on; attention acts after the last batch norm."""

    norms: ClassVar[tuple[str, ...]]
    conv1: nn.Module
    bn1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    relu: nn.Module
    downsample: nn.Module | None
    skip: bool

    def adapt(self, options: BlockOptions) -> None:
        """Leave out what the options leave out; the batch norm of the shortcut stays."""
        self.skip = options.skip
        if not options.skip:
            self.downsample = None
        if not options.batch_norm:
            for name in self.norms:
                setattr(self, name, nn.Identity())
        self.output = nn.ReLU(inplace=True)

    def paths(self, x: Features) -> tuple[Features, Features | None]:
        """The branch's and the shortcut's result."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.residual(x), shortcut if self.skip else None

    def residual(self, x: Features) -> Features:
        """The branch's result."""
        raise NotImplementedError


class BasicBlock(TorchvisionBlock, resnet.BasicBlock):  # type: ignore[misc]  # torchvision has no types
    """Two 3x3 convolutions, the stride on the first."""

    norms = ("bn1", "bn2")

    def residual(self, x: Features) -> Features:
        """The branch's result."""
        x = self.relu(self.bn1(self.conv1(x)))
        normed: Tensor = self.bn2(self.conv2(x))
        return normed


class Bottleneck(TorchvisionBlock, resnet.Bottleneck):  # type: ignore[misc]
    """1x1, 3x3 (with the stride) and 1x1 convolutions."""

    norms = ("bn1", "bn2", "bn3")
    conv3: nn.Module
    bn3: nn.Module

    def residual(self, x: Features) -> Features:
        """The branch's result."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        normed: Tensor = self.bn3(self.conv3(x))
        return normed


class ImageNetResNet(resnet.ResNet, Network):  # type: ignore[misc]
    """Takes images (batch, in_channels, height, width) of any size, gives logits (batch, num_classes).

    Four stages of 64, 128, 256 and 512 channels, from depth 50 on four times as many; the last one sees 1/32 of the
    image's height and width, rounded up.
    """

    def __init__(
        self,
        plan: AttentionPlan,
        options: BlockOptions,
        num_classes: int,
        in_channels: int,
        *,
        depth: int,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ):
        plan.check(BLOCKS[depth])
        block = Bottleneck if depth >= FIRST_BOTTLENECK else BasicBlock
        super().__init__(block, BLOCKS[depth], num_classes, norm_layer=norm)
        self.smallest = _smallest_image(plan)
        if in_channels != 3:
            self.conv1 = conv(in_channels, WIDTHS[0], 7, 2)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        if not options.batch_norm:
            self.bn1 = nn.Identity()
        self.channels = tuple(width * block.expansion for width in WIDTHS)
        for number, channels in enumerate(self.channels, 1):
            self._give_attention(number, channels, plan, options)

    def _give_attention(self, number: int, channels: int, plan: AttentionPlan, options: BlockOptions) -> None:
        blocks = dict(getattr(self, f"layer{number}").named_children())
        for block in blocks.values():
            block.adapt(options)
        setattr(self, f"layer{number}", plan.stage(number, list(blocks.values()), channels, list(blocks)))

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
        """Give the logits. Raises ModelInputError for images that leave the attention too little to describe."""
        if min(images.shape[-2:]) < self.smallest:
            raise ModelInputError(
                "images",
                f"images of {images.shape[-2]}x{images.shape[-1]} are too small; "
                f"at least {self.smallest}x{self.smallest} is needed",
            )
        logits: Tensor = super().forward(images)
        return logits


def _smallest_image(plan: AttentionPlan) -> int:
    """The side that gives the last stage with attention as many positions a side as that attention needs."""
    if plan.kind is None:
        return 1
    stride: int = 2 ** (max(plan.stages, default=len(WIDTHS)) + 1)
    side: int = plan.kind.build.smallest_side
    return stride * (side - 1) + 1
