"""Detectors on residual networks with attention: torchvision's Faster R-CNN and RetinaNet with feature pyramids.

As in torchvision's detectors on pretrained networks, the stem and stage 1 (its attention too) are not trained, and
the batch norms are fixed, unless a detector is trained `from_scratch`. All parts have torchvision's names, so that its
weights load as they are (`load_backbone`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from dia_models.backbones.residual import BlockOptions
from dia_models.backbones.resnet import ImageNetResNet
from dia_models.backbones.stage import AttentionPlan
from dia_models.errors import ModelInputError
from dia_models.spec import Network

PYRAMID_CHANNELS = 256
FROZEN = ("conv1", "bn1", "layer1")
ANCHOR_SIDES = (32, 64, 128, 256, 512)
ASPECT_RATIOS = (0.5, 1.0, 2.0)
SMALLEST_SIDE, LARGEST_SIDE = 64, 10_000
"""Of images as the network sees them; with 64 pixels the last stage has 2x2 positions."""


class Detector(Network):
    """Takes a list of images (3, height, width) with values from 0 to 1, of any sizes; scales them by itself.

    In training mode it also takes a list of dicts, `boxes` (object, 4) as x1, y1, x2, y2 and `labels` (object), and
    gives a dict of losses; in evaluation mode it gives a dict of `boxes`, `labels` and `scores` per image. Label 0
    is the background and counts as a class.
    """

    from_scratch = False
    backbone: BackboneWithFPN
    transform: GeneralizedRCNNTransform

    def train(self, mode: bool = True) -> "Detector":
        """Set the mode. The batch norms of attention modules keep their statistics: a step has too few images."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and not self.from_scratch:
                module.eval()
        return self


class FasterRCNNDetector(Detector, FasterRCNN):  # type: ignore[misc]  # torchvision has no types
    """Proposes regions, then classifies each (Ren et al. 2015), on the pyramid of Lin et al. 2017a."""


class RetinaNetDetector(Detector, RetinaNet):  # type: ignore[misc]
    """Classifies every anchor at once, with the focal loss (Lin et al. 2017b)."""


@dataclass(frozen=True)
class Sizes:
    """How images are scaled: the shorter side to `min_size`, or the longer to `max_size` if that is less."""

    min_size: int
    max_size: int

    def __post_init__(self) -> None:
        if not SMALLEST_SIDE <= self.min_size <= self.max_size <= LARGEST_SIDE:
            raise ModelInputError(
                "set",
                f"min_size {self.min_size} and max_size {self.max_size} must be in this order from {SMALLEST_SIDE} "
                f"to {LARGEST_SIDE}",
            )


def fasterrcnn(
    plan: AttentionPlan, num_classes: int, in_channels: int, *, depth: int, from_scratch: bool, **sizes: int
) -> FasterRCNNDetector:
    """Faster R-CNN. `from_scratch` also trains the stem, stage 1 and the batch norms."""
    scaled = _check_inputs(in_channels, sizes)
    pyramid = _pyramid(plan, depth, from_scratch, (1, 2, 3, 4), LastLevelMaxPool())
    anchors = _anchors([(side,) for side in ANCHOR_SIDES])
    detector = FasterRCNNDetector(pyramid, num_classes, scaled.min_size, scaled.max_size, rpn_anchor_generator=anchors)
    detector.from_scratch = from_scratch
    return detector


def retinanet(
    plan: AttentionPlan, num_classes: int, in_channels: int, *, depth: int, from_scratch: bool, **sizes: int
) -> RetinaNetDetector:
    """RetinaNet, likewise."""
    scaled = _check_inputs(in_channels, sizes)
    pyramid = _pyramid(plan, depth, from_scratch, (2, 3, 4), LastLevelP6P7(PYRAMID_CHANNELS, PYRAMID_CHANNELS))
    anchors = _anchors([tuple(int(side * 2 ** (third / 3)) for third in range(3)) for side in ANCHOR_SIDES])
    detector = RetinaNetDetector(pyramid, num_classes, scaled.min_size, scaled.max_size, anchor_generator=anchors)
    detector.from_scratch = from_scratch
    return detector


def _pyramid(
    plan: AttentionPlan, depth: int, from_scratch: bool, stages: Sequence[int], top: ExtraFPNBlock
) -> BackboneWithFPN:
    norm = nn.BatchNorm2d if from_scratch else FrozenBatchNorm2d
    body = ImageNetResNet(plan, BlockOptions(), 1, 3, depth=depth, norm=norm)
    for name, parameter in body.named_parameters():
        if name.startswith(FROZEN) and not from_scratch:
            parameter.requires_grad_(False)
    returned = {f"layer{stage}": str(place) for place, stage in enumerate(stages)}
    channels = [body.channels[stage - 1] for stage in stages]
    return BackboneWithFPN(body, returned, channels, PYRAMID_CHANNELS, top)


def _anchors(sides: list[tuple[int, ...]]) -> AnchorGenerator:
    with torch.device("cpu"):  # its tensors are no buffers: on the meta device, loading weights would not fill them
        return AnchorGenerator(tuple(sides), (ASPECT_RATIOS,) * len(sides))


def _check_inputs(in_channels: int, sizes: dict[str, int]) -> Sizes:
    if in_channels != 3:
        raise ModelInputError("in_channels", f"{in_channels} given; a detector takes images of 3 channels")
    return Sizes(**sizes)
