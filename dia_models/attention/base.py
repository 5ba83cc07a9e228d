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


def recalibrated(
    branch: Features, gate: Float[Tensor, "batch ..."], shortcut: Features | None, *, overwrite: bool = False
) -> Features:
    """`gate * branch`, plus the shortcut if there is one, in one pass over the features.

    With `overwrite`, the result takes the branch's memory.
    """
    out = branch if overwrite else None
    return torch.mul(branch, gate, out=out) if shortcut is None else torch.addcmul(shortcut, branch, gate, out=out)


class Attention(nn.Module):
    """Recalibrate a residual branch by a gate and add the shortcut: equation 2 of the paper.

    One instance may serve one layer (an individual module) or be called once per layer of a stage (a shared
    one). `state` is whatever the module carries from one of its calls to the next along depth, None at first.
    """

    normalised_branch: ClassVar[bool] = False
    """Whether a branch that does not end with a batch norm must gain one for this module."""

    smallest_side: ClassVar[int] = 1
    """The least height and width of features: 2 where a deviation over positions is needed."""

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
    """Scale each channel of the branch by a gate that is computed from a description of the branch.

    Subclasses say how the branch is described (its channel means, unless they say otherwise) and how the gate
    follows. It passes through the probe point `gate`, of shape (batch, channel): a hook there sees exactly what
    multiplies the features.
    """

    positional: ClassVar[bool] = False
    """Whether the description depends on where in the image a position is."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Identity()

    @property
    def describes_means(self) -> bool:
        """Whether the gate is computed from the branch's channel means."""
        return type(self).describe is ChannelAttention.describe

    def describe(self, branch: Features) -> Tensor:
        """What the gate is computed from."""
        return channel_means(branch)

    def attend(self, described: Tensor, state: Any) -> tuple[Float[Tensor, "batch channel"], Any]:
        """Give the gate for a described branch, and the state for the next call."""
        raise NotImplementedError

    def forward(
        self,
        branch: Features,
        shortcut: Features | None,
        state: Any = None,
        *,
        described: Tensor | None = None,
        overwrite: bool = False,
    ) -> tuple[Features, Any]:
        """Give `shortcut + gate * branch` and the state for the next call.

        `described` is what `describe` gives, if the caller has it; with `overwrite` the result may take the branch's
        memory.
        """
        gate, state = self.attend(self.describe(branch) if described is None else described, state)
        gate = self.gate(gate.to(branch.dtype))
        return recalibrated(branch, gate[:, :, None, None], shortcut, overwrite=overwrite), state
