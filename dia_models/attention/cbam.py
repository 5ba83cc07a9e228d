"""Convolutional block attention, CBAM (Woo et al. 2018)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import Attention, Features, channel_means, recalibrate
from dia_models.attention.registry import About, check_reduction, register


class ChannelGate(nn.Module):
    """σ(MLP(mean) + MLP(max)), through the probe point `gate` of shape (batch, channel)."""

    def __init__(self, channels: int, hidden: int, bias: bool):
        super().__init__()
        self.excitation = nn.Sequential(
            nn.Linear(channels, hidden, bias=bias), nn.ReLU(), nn.Linear(hidden, channels, bias=bias)
        )
        self.gate = nn.Identity()

    def forward(self, branch: Features) -> Float[Tensor, "batch channel"]:
        """The gate."""
        pooled = torch.stack([channel_means(branch), branch.amax((2, 3))])
        gate: Tensor = self.gate(self.excitation(pooled).sum(0).sigmoid().to(branch.dtype))
        return gate


class SpatialGate(nn.Module):
    """σ(BN(conv7x7([max, mean] over channels))), through `gate` of shape (batch, 1, height, width).

    The batch norm starts with weight 0. Layers that share the gate keep a batch norm of their own each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norms = nn.ModuleList([_norm()])
        self.gate = nn.Identity()

    def forward(self, branch: Features, norm: int) -> Float[Tensor, "batch 1 height width"]:
        """The gate, by the batch norm of this number."""
        extremes = torch.cat([branch.amax(1, keepdim=True), branch.mean(1, keepdim=True)], dim=1)
        gate: Tensor = self.gate(self.norms[norm](self.conv(extremes)).sigmoid().to(branch.dtype))
        return gate


@register(
    "cbam",
    About(
        "σ(MLP(mean) + MLP(max)), then σ(BN(7x7 convolution)) per position",
        "2N²/r + N + N/r + 100",
        "Woo et al. 2018",
        kept="batch norm",
    ),
)
class ConvolutionalBlock(Attention):
    """A channel gate, then a spatial gate on what it leaves. 2N²/r + N + N/r + 98 + 2 parameters (`bias`: of the MLP).

    A shared module shares all but the spatial gate's batch norm, unless `share_bn`.
    """

    def __init__(self, channels: int, *, reduction: int = 16, bias: bool = True, share_bn: bool = False):
        super().__init__()
        self.share_bn = share_bn
        self.channel = ChannelGate(channels, check_reduction(reduction, channels), bias)
        self.spatial = SpatialGate()

    def serve(self, layers: int) -> None:
        """One batch norm per layer."""
        if not self.share_bn:
            self.spatial.norms.extend(_norm() for _ in range(layers - 1))

    def forward(self, branch: Features, shortcut: Features | None, state: Any = None) -> tuple[Features, Any]:
        """Give `shortcut + spatial * channel * branch`; the state counts the layers."""
        layer = state or 0
        scaled = branch * self.channel(branch)[:, :, None, None]
        return recalibrate(scaled, self.spatial(scaled, 0 if self.share_bn else layer), shortcut), layer + 1


def _norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(1, momentum=0.01)
    nn.init.zeros_(norm.weight)
    return norm
