"""Spatial group-wise enhancement, SGE (Li et al. 2019)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import Attention, Features, precise
from dia_models.attention.registry import About, register
from dia_models.errors import ModelInputError


@register(
    "sge",
    About("σ(w ⊗ standardized similarity to the mean + b) per group and position", "2G, G = 64", "Li et al. 2019"),
)
class SpatialGroup(Attention):
    """Channels in G groups; each group's gate at a position says how much that position is like the group's mean.

    Similarity = Σ_c x_c · mean(x_c), standardized over positions (unbiased, + 1e-5), then σ(w_g · similarity + b_g);
    w = 0 and b = 1 at first. 2G parameters. The probe point `gate` has shape (batch, group, height, width).
    """

    carries_state = False

    smallest_side = 2

    def __init__(self, channels: int, *, groups: int = 64):
        super().__init__()
        if groups < 1 or channels % groups:
            nearest = max(g for g in range(1, min(max(groups, 1), channels) + 1) if channels % g == 0)
            raise ModelInputError("groups", f"{groups} groups must divide the {channels} channels; try {nearest}")
        self.weight = nn.Parameter(torch.zeros(groups, 1, 1))
        self.bias = nn.Parameter(torch.ones(groups, 1, 1))
        self.gate = nn.Identity()

    def forward(self, branch: Features, shortcut: Features | None, state: Any = None) -> tuple[Features, Any]:
        """Give `shortcut + gate * branch`, a gate per group and position; nothing is carried along depth."""
        batch, _, height, width = branch.shape
        groups = branch.reshape(batch, len(self.weight), -1, height, width)
        similarity = (groups * groups.mean((3, 4), keepdim=True)).sum(2)
        deviation, mean = torch.std_mean(precise(similarity), (2, 3), keepdim=True)
        standard = ((similarity - mean) / (deviation + 1e-5)).to(branch.dtype)
        gate = self.gate(self._emphasis(standard))
        emphasized = (groups * gate[:, :, None]).reshape(branch.shape)
        return emphasized if shortcut is None else shortcut + emphasized, state

    def _emphasis(
        self, standard: Float[Tensor, "batch group height width"]
    ) -> Float[Tensor, "batch group height width"]:
        return torch.addcmul(self.bias, self.weight, standard).sigmoid().to(standard.dtype)
