"""Self-adaptive mix-pooling, SPEM (Zhong and Wen 2022)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import ChannelAttention, Features
from dia_models.attention.registry import About, register

PENALTY = 0.1


@register(
    "spem", About("σ(M + m) σ(w₁ ⊗ (p₀ M + p₁ m) + b₁), M and m from the extremes", "4N + 2", "Zhong and Wen 2022")
)
class MixPooling(ChannelAttention):
    """gate = σ(M + m) · σ(w1 (p0 M + p1 m) + b1), with M, m = w2 max + b2, w2 min + b2 and p = q² / Σ q².

    4N + 2 parameters; w = 0, b = -1 and p = 1/2 at first. Each module adds 0.1 Σ q² to the training loss.
    """

    carries_state = False
    compares_positions = True

    def __init__(self, channels: int):
        super().__init__()
        self.mix = nn.Parameter(torch.full((2,), 0.5))
        self.pooled_scale, self.mixed_scale = (nn.Parameter(torch.zeros(channels)) for _ in range(2))
        self.pooled_shift, self.mixed_shift = (nn.Parameter(torch.full((channels,), -1.0)) for _ in range(2))

    def penalty(self) -> Float[Tensor, ""]:
        """0.1 times the squared length of q."""
        return PENALTY * self.mix.square().sum()

    def extract(self, branch: Features) -> Float[Tensor, "2 batch channel"]:
        """The largest and the smallest value of each channel."""
        return torch.stack([branch.amax((2, 3)), branch.amin((2, 3))])

    def process(
        self, extracted: Float[Tensor, "2 batch channel"], state: Any
    ) -> tuple[Float[Tensor, "batch channel"], Any]:
        """Mix the extremes; nothing is carried along depth."""
        most, least = torch.addcmul(self.pooled_shift, self.pooled_scale, extracted)
        first, second = self.mix.square() / self.mix.square().sum()
        mixed = torch.addcmul(self.mixed_shift, self.mixed_scale, first * most + second * least)
        return (most + least).sigmoid() * mixed.sigmoid(), state
