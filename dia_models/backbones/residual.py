"""The frame of a residual network: stem, stages of blocks with attention, mean pool, classifier."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.constant_call import BoundCall
from dia_models.backbones.stage import AttentionPlan
from dia_models.errors import ModelInputError
from dia_models.spec import Network

SMALLEST_IMAGE = 8

Features = Float[Tensor, "batch _ _ _"]


@dataclass(frozen=True)
class BlockOptions:
    """What the blocks of a network have: a shortcut (`skip`), batch norms, a batch norm at the branch's end."""

    skip: bool = True
    batch_norm: bool = True
    normalized_branch: bool = False


class ResidualBlock(nn.Module):
    """x + attention(f(x)) ⊗ f(x), with f the branch, then `output`; a hook on that submodule sees the block's output.

    Subclasses set `branch`, `shortcut` (None without skip connection) and `output`, or say what the two `paths` are.
    """

    branch: nn.Module
    shortcut: nn.Module | None
    output: nn.Module

    def forward(
        self, x: Features, attention: nn.Module | BoundCall | None = None, state: Any = None
    ) -> tuple[Features, Any]:
        """Give the block's output and the attention's new state."""
        branch, shortcut = self.paths(x)
        if attention is not None:
            x, state = attention(branch, shortcut, state)  # shortcut + gate ⊗ branch, equation 2 of the paper
        else:
            x = branch if shortcut is None else shortcut + branch
        return self.output(x), state

    def paths(self, x: Features) -> tuple[Features, Features | None]:
        """The branch's and the shortcut's result."""
        return self.branch(x), None if self.shortcut is None else self.shortcut(x)


class ResidualNetwork(Network):
    """Takes images (batch, in_channels, height, width) of at least 8x8, gives logits (batch, num_classes).

    `block(in_channels, channels, stride)` makes a block; the first of each stage but the first halves the size.
    """

    def __init__(
        self,
        stem: nn.Module,
        stem_channels: int,
        stage_channels: Sequence[int],
        blocks: int,
        block: Callable[[int, int, int], nn.Module],
        tail: nn.Module,
        plan: AttentionPlan,
        num_classes: int,
    ):
        super().__init__()
        plan.check([blocks] * len(stage_channels))
        self.stem = stem
        self.stages = nn.Sequential()
        inputs = stem_channels
        for number, channels in enumerate(stage_channels, 1):
            first = block(inputs, channels, 1 if number == 1 else 2)
            rest = [block(channels, channels, 1) for _ in range(blocks - 1)]
            self.stages.append(plan.stage(number, [first, *rest], channels))
            inputs = channels
        self.tail = tail
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
        """Give the logits. Raises ModelInputError for images smaller than 8x8."""
        if min(images.shape[-2:]) < SMALLEST_IMAGE:
            raise ModelInputError(
                "images", f"images of {images.shape[-2]}x{images.shape[-1]} are too small; at least 8x8 is needed"
            )
        features = self.tail(self.stages(self.stem(images)))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


def blocks_per_stage(backbone: str, depth: int, step: int, rest: int, deepest: int = 1_999) -> int:
    """(depth - rest) / step. Raises ModelInputError, naming the nearest valid depths, if that is no whole number."""
    blocks, remainder = divmod(depth - rest, step)
    most = (deepest - rest) // step
    if remainder == 0 and 1 <= blocks <= most:
        return blocks
    nearest = [step * n + rest for n in sorted({min(max(n, 1), most) for n in (blocks, blocks + 1)})]
    raise ModelInputError(
        "model",
        f"{backbone}{depth}: the depth must be {step}n + {rest}, from {step + rest} to {deepest}; "
        f"nearest: {' or '.join(f'{backbone}{d}' for d in nearest)}",
    )
