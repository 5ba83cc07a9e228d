"""Efficient channel attention (Wang et al. 2020)."""

from math import log2
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import ChannelAttention
from dia_models.attention.registry import About, register


def kernel_size(channels: int) -> int:
    """The published rule: the odd number at or above (log2(channels) + 1) / 2, rounded down first."""
    t = int(abs((log2(channels) + 1) / 2))
    return t if t % 2 else t + 1


@register("eca", About("σ(1-D convolution of y along the channels)", "k: 3, 5 or 7, by N", "Wang et al. 2020"))
class EfficientChannel(ChannelAttention):
    """gate = sigmoid of a 1-D convolution of the channel means along the channel axis. k parameters."""

    carries_state = False

    def __init__(self, channels: int):
        super().__init__()
        k = kernel_size(channels)
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def process(
        self, extracted: Float[Tensor, "batch channel"], state: Any
    ) -> tuple[Float[Tensor, "batch channel"], Any]:
        """Convolve the channel means; nothing is carried along depth."""
        return self.conv(extracted[:, None, :])[:, 0, :].sigmoid(), state
