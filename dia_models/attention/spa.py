"""Spatial pyramid attention, SPA (Guo et al. 2020, the ICME paper)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import ChannelAttention, Features
from dia_models.attention.registry import About, check_reduction, register

GRIDS = (1, 2, 4)


@register("spa", About("σ(W₂ relu(W₁ p)), p the means over 1x1, 2x2, 4x4 grids", "22N²/r", "Guo et al. 2020 (ICME)"))
class SpatialPyramid(ChannelAttention):
    """gate = sigmoid(W2 relu(W1 p)), p the means of each channel over 1x1, 2x2 and 4x4 grids. 22N²/r parameters."""

    carries_state = False

    positional = True

    def __init__(self, channels: int, *, reduction: int = 16):
        super().__init__()
        hidden = check_reduction(reduction, channels)
        cells = sum(grid**2 for grid in GRIDS)
        self.excitation = nn.Sequential(
            nn.Linear(cells * channels, hidden, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def extract(self, branch: Features) -> Float[Tensor, "batch extracted"]:
        """The pyramid, coarsest grid first, each grid channel by channel."""
        return torch.cat([F.adaptive_avg_pool2d(branch, grid).flatten(1) for grid in GRIDS], dim=1)

    def process(
        self, extracted: Float[Tensor, "batch extracted"], state: Any
    ) -> tuple[Float[Tensor, "batch channel"], Any]:
        """Excite the pyramid; nothing is carried along depth."""
        return self.excitation(extracted), state
