"""A stage: consecutive blocks with one feature size, and the attention that they own or share."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention import AttentionKind


class Stage(nn.Module):
    """Run blocks in order, giving each its layer of attention.

    `attention` is an `nn.ModuleList` of one module per block (individual), one module that every block calls
    (shared: the same parameters, the state carried from block to block), or None.
    """

    def __init__(self, blocks: Sequence[nn.Module], attention: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = attention

    def layers(self) -> Iterator[nn.Module | None]:
        """The attention module of each block, in order."""
        return iter(self.attention) if isinstance(self.attention, nn.ModuleList) else repeat(self.attention)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch out h w"]:
        """Apply the blocks; the attention's state starts empty."""
        state: Any = None
        for block, attention in zip(self.blocks, self.layers(), strict=False):
            x, state = block(x, attention, state)
        return x


def stage_attention(kind: AttentionKind | None, channels: int, blocks: int, **options: Any) -> nn.Module | None:
    """Build the attention of one stage: one module if it is shared, else one per block."""
    if kind is None:
        return None
    if kind.shared:
        return kind.build(channels, **options)
    return nn.ModuleList(kind.build(channels, **options) for _ in range(blocks))
