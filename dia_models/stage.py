"""A stage: consecutive blocks with one feature size, and the attention that they own or share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention import AttentionKind
from dia_models.errors import ModelInputError


class Stage(nn.Module):
    """Run blocks in order, giving each its layer of attention.

    `attention` is an `nn.ModuleList` of one module per connected block (individual), one module that every
    connected block calls (shared: the same parameters, the state carried from one to the next), or None.
    `connected` says which blocks have attention; the others neither use nor change the shared state.
    """

    def __init__(self, blocks: Sequence[nn.Module], attention: nn.Module | None, connected: Sequence[bool]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = attention
        self.connected = tuple(connected)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch out h w"]:
        """Apply the blocks; the attention's state starts empty."""
        individual = iter(self.attention) if isinstance(self.attention, nn.ModuleList) else None
        state: Any = None
        for block, connected in zip(self.blocks, self.connected, strict=True):
            if not connected:
                x, _ = block(x, None, None)
            elif individual is not None:
                x, _ = block(x, next(individual), None)
            else:
                x, state = block(x, self.attention, state)
        return x


@dataclass(frozen=True)
class AttentionPlan:
    """Which attention a network has and where; stages and blocks are counted from 1, empty means all of them."""

    kind: AttentionKind | None = None
    options: dict[str, Any] = field(default_factory=dict)
    stages: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()

    @property
    def normalised_branch(self) -> bool:
        """Whether the blocks' branches must end with a batch norm."""
        return self.kind is not None and bool(self.kind.build.normalised_branch)

    def check(self, stages: int, blocks: int) -> None:
        """Raise ModelInputError for a stage or block that the network does not have."""
        for name, chosen, count in (("stages", self.stages, stages), ("blocks", self.blocks, blocks)):
            if chosen and self.kind is None:
                raise ModelInputError("set", f"attention_{name} was given, but the network has no attention")
            if outside := [n for n in chosen if not 1 <= n <= count]:
                raise ModelInputError("set", f"attention_{name}: there is no {outside[0]}; accepted: 1 to {count}")

    def stage(self, number: int, blocks: Sequence[nn.Module], channels: int) -> Stage:
        """Put blocks and their attention together."""
        if self.kind is None or (self.stages and number not in self.stages):
            return Stage(blocks, None, [False] * len(blocks))
        connected = [not self.blocks or position in self.blocks for position in range(1, len(blocks) + 1)]
        return Stage(blocks, self.kind.make(channels, sum(connected), self.options), connected)
