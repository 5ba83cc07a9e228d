"""Squeeze-and-excitation (Hu et al. 2018)."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import ChannelAttention
from dia_models.attention.registry import About, check_reduction, register


@register("se", About("σ(W₂ relu(W₁ y))", "2N²/r + N + N/r", "Hu et al. 2018"))
class SqueezeExcitation(ChannelAttention):
    """gate = sigmoid(W2 relu(W1 y + b1) + b2), y the channel means.

    2N²/r + N + N/r parameters; 2N²/r without `bias`.
    """

    carries_state = False

    def __init__(self, channels: int, *, reduction: int = 16, bias: bool = True):
        super().__init__()
        hidden = check_reduction(reduction, channels)
        self.excitation = nn.Sequential(
            nn.Linear(channels, hidden, bias=bias),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=bias),
            nn.Sigmoid(),
        )

    def process(
        self, extracted: Float[Tensor, "batch channel"], state: Any
    ) -> tuple[Float[Tensor, "batch channel"], Any]:
        """Excite the channel means; nothing is carried along depth."""
        return self.excitation(extracted), state
