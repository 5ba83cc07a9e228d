"""What every attention module has in common: a probe point, and the sum it turns a block's branch into."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def channel_means(features: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel"]:
    """Global average pool. Sums, then divides: on CPUs torch's own mean is 20 times slower in bfloat16."""
    sums = features.sum((2, 3), dtype=torch.float32 if features.dtype is torch.float16 else None)
    return sums / features[0, 0].numel()


class ChannelAttention(nn.Module):
    """Scale each channel of a residual branch by a gate computed from the branch's channel means.

    Subclasses say how the gate follows from the means, in `attend`. The gate passes through the probe
    point `gate`, of shape (batch, channel): a hook there sees exactly what multiplies the features.

    One instance may serve one layer (an individual module) or be called once per layer of a stage (a shared
    one); `state` is whatever the module wants to carry from one of its calls to the next, None at first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Identity()

    def attend(self, pooled: Float[Tensor, "batch channel"], state: Any) -> tuple[Tensor, Any]:
        """Give the gate (batch, channel) for these channel means, and the state for the next call."""
        raise NotImplementedError

    def forward(
        self,
        branch: Float[Tensor, "batch channel height width"],
        shortcut: Float[Tensor, "batch channel height width"],
        state: Any = None,
    ) -> tuple[Float[Tensor, "batch channel height width"], Any]:
        """Give `shortcut + gate * branch` (equation 2 of the paper) and the state for the next call."""
        gate, state = self.attend(channel_means(branch), state)
        gate = self.gate(gate.to(branch.dtype))
        return torch.addcmul(shortcut, branch, gate[:, :, None, None]), state
