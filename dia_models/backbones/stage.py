"""A stage: consecutive blocks with one feature size, and the attention that they own or share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention import AttentionKind
from dia_models.errors import ModelInputError


class Walk:
    """One pass along a stage's blocks, in order: gives each its layer of attention and carries the shared state.

    `attention` is an `nn.ModuleList` of one module per connected block (individual), one module that every
    connected block calls (shared: the same parameters, the state carried from one to the next), or None.
    `connected` says which blocks have attention; the others neither use nor change the shared state.
    """

    def __init__(self, attention: nn.Module | None, connected: Sequence[bool]):
        self.individual = isinstance(attention, nn.ModuleList)
        modules = iter(attention) if isinstance(attention, nn.ModuleList) else repeat(attention)
        self.layers = iter([next(modules) if has else None for has in connected])
        self.state: Any = None

    def __call__(self, block: nn.Module, x: Float[Tensor, "batch ..."], *inputs: Any) -> Float[Tensor, "batch ..."]:
        """Apply the next block to x and whatever else it takes."""
        layer = next(self.layers)
        carried = layer is not None and not self.individual
        x, state = block(x, layer, self.state if carried else None, *inputs)
        if carried:
            self.state = state
        return x


class Stage(nn.Module):
    """Run blocks in order, giving each its layer of attention; see `Walk`.

    The blocks are `blocks.0`, `blocks.1`, ..., or, so that another library's weights load by name, children called
    as `names` says.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        attention: nn.Module | None,
        connected: Sequence[bool],
        names: Sequence[str] = (),
    ):
        super().__init__()
        if not names:
            self.blocks = nn.ModuleList(blocks)
        for name, block in zip(names, blocks, strict=bool(names)):
            self.add_module(name, block)
        self.names = tuple(names) or tuple(f"blocks.{number}" for number in range(len(blocks)))
        self.attention = attention
        self.connected = tuple(connected)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Apply the blocks; the attention's state starts empty."""
        walk = Walk(self.attention, self.connected)
        for name in self.names:
            x = walk(self.get_submodule(name), x)
        return x


@dataclass(frozen=True)
class AttentionPlan:
    """Which attention a network has and where; stages and blocks are counted from 1, empty means all of them."""

    kind: AttentionKind | None = None
    options: dict[str, Any] = field(default_factory=dict)
    stages: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()

    @property
    def normalized_branch(self) -> bool:
        """Whether the blocks' branches must end with a batch norm."""
        return self.kind is not None and bool(self.kind.build.normalized_branch)

    def check(self, blocks: Sequence[int]) -> None:
        """Raise ModelInputError for a stage or block that a network of so many blocks per stage does not have."""
        if self.kind is None and (self.stages or self.blocks):
            name = "stages" if self.stages else "blocks"
            raise ModelInputError("set", f"attention_{name} was given, but the network has no attention")
        _check_numbers("stages", self.stages, len(blocks))
        _check_numbers("blocks", self.blocks, max(blocks[n - 1] for n in self.stages or range(1, len(blocks) + 1)))

    def stage(self, number: int, blocks: Sequence[nn.Module], channels: int, names: Sequence[str] = ()) -> Stage:
        """Put blocks and their attention together."""
        return Stage(blocks, *self.layers(number, len(blocks), channels), names)

    def layers(self, number: int, blocks: int, channels: int) -> tuple[nn.Module | None, list[bool]]:
        """The attention of one stage, and which of its blocks have it."""
        chosen = self.kind is not None and (not self.stages or number in self.stages)
        connected = [chosen and (not self.blocks or position in self.blocks) for position in range(1, blocks + 1)]
        if self.kind is None or not any(connected):
            return None, connected
        return self.attention(self.kind, channels, sum(connected)), connected

    def attention(self, kind: AttentionKind, channels: int, layers: int) -> nn.Module:
        """So many layers of attention: a module for each, or one that they share."""
        return kind.make(channels, layers, self.options)


def _check_numbers(name: str, chosen: tuple[int, ...], count: int) -> None:
    if outside := [n for n in chosen if not 1 <= n <= count]:
        raise ModelInputError("set", f"attention_{name}: there is no {outside[0]}; accepted: 1 to {count}")
