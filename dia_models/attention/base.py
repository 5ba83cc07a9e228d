"""What attention modules have in common: a probe point, and the sum they turn a block's branch into."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Features = Float[Tensor, "batch channel height width"]


def channel_means(features: Features) -> Float[Tensor, "batch channel"]:
    """Global average pool. Sums, then divides: on CPUs torch's own mean is 20 times slower in bfloat16."""
    sums = features.sum((2, 3), dtype=torch.float32 if features.dtype is torch.float16 else None)
    return sums / features[0, 0].numel()


def precise(features: Features) -> Features:
    """At least float32, for sums of squares that half precision cannot hold."""
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def recalibrate(branch: Features, gate: Float[Tensor, "batch ..."], shortcut: Features | None) -> Features:
    """`gate * branch`, plus the shortcut if there is one, in one pass over the features."""
    return branch * gate if shortcut is None else torch.addcmul(shortcut, branch, gate)


class Attention(nn.Module):
    """Recalibrate a residual branch by a gate and add the shortcut: equation 2 of the paper.

    One instance may serve one layer (an individual module) or be called once per layer of a stage (a shared
    one). `state` is whatever the module carries from one of its calls to the next along depth, None at first.
    """

    normalized_branch: ClassVar[bool] = False
    """Whether a branch that does not end with a batch norm must gain one for this module."""

    smallest_side: ClassVar[int] = 1
    """The least height and width of features: 2 where a deviation over positions is needed."""

    carries_state: ClassVar[bool] = True
    """Whether a call of a shared module may depend on the calls before it, by what they hand on."""

    def serve(self, layers: int) -> None:
        """Prepare to be shared by so many layers; a module with parts that must not be shared makes them here."""

    def penalty(self) -> Float[Tensor, ""] | None:
        """What the module adds to the training loss; None if nothing."""
        return None

    def without_weight_decay(self) -> list[nn.Parameter]:
        """The parameters that training must not pull to zero."""
        return []

    def forward(self, branch: Features, shortcut: Features | None, state: Any = None) -> tuple[Features, Any]:
        """Give the recalibrated branch, plus the shortcut if there is one, and the state for the next call."""
        raise NotImplementedError


class ChannelAttention(Attention):
    """Scale each channel of the branch by a gate: extraction, processing, recalibration (Fig. 1 of the paper).

    Subclasses say what is extracted from the branch (its channel means, unless they say otherwise) and how it is
    processed to the gate. This passes through the probe point `gate`, of shape (batch, channel): a hook there sees
    exactly what multiplies the features.
    """

    positional: ClassVar[bool] = False
    """Whether what is extracted depends on where in the image a position is."""

    compares_positions: ClassVar[bool] = False
    """Whether the gate is made of how positions differ, so that features of one position show nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Identity()

    def extract(self, branch: Features) -> Tensor:
        """What the gate is computed from."""
        return channel_means(branch)

    def process(self, extracted: Tensor, state: Any) -> tuple[Float[Tensor, "batch channel"], Any]:
        """Give the gate for what was extracted, and the state for the next call."""
        raise NotImplementedError

    def forward(
        self, branch: Features, shortcut: Features | None, state: Any = None, *, extracted: Tensor | None = None
    ) -> tuple[Features, Any]:
        """Give `shortcut + gate * branch` and the state for the next call.

        `extracted` is what `extract` gives, if the caller has it.
        """
        gate, state = self.process(self.extract(branch) if extracted is None else extracted, state)
        gate = self.gate(gate.to(branch.dtype))
        return recalibrate(branch, gate[:, :, None, None], shortcut), state
