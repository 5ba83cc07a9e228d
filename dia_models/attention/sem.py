"""Switchable excitation, SEM (Zhong et al. 2022)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import ChannelAttention
from dia_models.attention.eca import kernel_size
from dia_models.attention.registry import About, check_reduction, register


@register(
    "sem",
    About("σ(d₀ SE(y)) σ(d₁ ECA(y)) σ(d₂ (w ⊗ y + b)), d = σ(W y)", "2N²/r + 6N + N/r + 3 + k", "Zhong et al. 2022"),
)
class Switchable(ChannelAttention):
    """gate = σ(d0 · SE(y)) · σ(d1 · ECA(y)) · σ(d2 · (w y + b)), with y the channel means and d = σ(W y + v) per image.

    2N²/r + N + N/r + 3N + 3 + k + 2N parameters; w = 0 and b = -1 at first.
    """

    carries_state = False

    def __init__(self, channels: int, *, reduction: int = 16):
        super().__init__()
        hidden = check_reduction(reduction, channels)
        k = kernel_size(channels)
        self.decision = nn.Sequential(nn.Linear(channels, 3), nn.Sigmoid())
        self.excitation = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels))
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)
        self.scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.full((channels,), -1.0))

    def process(
        self, extracted: Float[Tensor, "batch channel"], state: Any
    ) -> tuple[Float[Tensor, "batch channel"], Any]:
        """Mix the three excitations; nothing is carried along depth."""
        fully, locally, alone = self.decision(extracted).split(1, dim=1)
        excited = (fully * self.excitation(extracted)).sigmoid()
        excited = excited * (locally * self.conv(extracted[:, None, :])[:, 0, :]).sigmoid()
        return excited * (alone * torch.addcmul(self.shift, self.scale, extracted)).sigmoid(), state
