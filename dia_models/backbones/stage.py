"""A stage: consecutive blocks with one feature size, and the attention that they own or share."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention import AttentionKind
from dia_models.attention.constant_call import BoundCall, ConstantCall
from dia_models.errors import ModelInputError


class Walk:
    """One pass along a stage's blocks, in order: gives each its layer of attention and carries the shared state.

    `attention` is an `nn.ModuleList` of one module per connected block (individual), one module that every
    connected block calls (shared: the same parameters, the state carried from one to the next), or None.
    `connected` says which blocks have attention; the others neither use nor change the shared state. `constant` are the
    layers whose gate is a constant, by the number of the block.
    """

    def __init__(
        self,
        attention: nn.Module | None,
        connected: Sequence[bool],
        constant: nn.ModuleDict | None = None,
    ):
        self.individual = isinstance(attention, nn.ModuleList)
        modules = iter(attention) if isinstance(attention, nn.ModuleList) else repeat(attention)
        layers: list[Any] = [next(modules) if has else None for has in connected]
        for number, call in () if constant is None else constant.items():
            assert isinstance(call, ConstantCall)
            layers[int(number)] = BoundCall(call, layers[int(number)])
        self.layers = iter(layers)
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
        self.constant = nn.ModuleDict()

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Apply the blocks; the attention's state starts empty."""
        walk = Walk(self.attention, self.connected, self.constant)
        for name in self.names:
            x = walk(self.get_submodule(name), x)
        return x

    def blocks_with_attention(self) -> list[int]:
        """The number of each block that has attention, from 0."""
        return [number for number, has in enumerate(self.connected) if has]

    def needed(self, folded: Collection[int]) -> set[int]:
        """Of the layers (from 0) whose gate is folded away, those whose module must still run: later ones need it."""
        return needed_layers(self.attention, folded, len(self.blocks_with_attention()))

    def fold(self, folded: Collection[int], kept: Collection[int], channels: int) -> dict[int, ConstantCall]:
        """Take the attention of some layers away; give what stands for those whose module still runs.

        Layers are counted from 0, along the blocks that have attention. Of the layers that are `needed`, those `kept`
        multiply by their constant.
        """
        blocks, needed = self.blocks_with_attention(), self.needed(folded)
        gone = {layer for layer in folded if layer not in needed}
        calls = {layer: ConstantCall(channels, multiplies=layer in kept) for layer in sorted(needed)}
        self.constant = nn.ModuleDict({str(blocks[layer]): call for layer, call in calls.items()})
        if isinstance(self.attention, nn.ModuleList):
            self.attention = nn.ModuleList(m for layer, m in enumerate(self.attention) if layer not in gone)
        without = {blocks[layer] for layer in gone}
        self.connected = tuple(has and number not in without for number, has in enumerate(self.connected))
        self.attention = self.attention if any(self.connected) else None
        return calls


def needed_layers(attention: nn.Module | None, folded: Collection[int], layers: int) -> set[int]:
    """Of the folded layers (from 0) of a stage, those whose module must still run, since a later layer needs it."""
    if isinstance(attention, nn.ModuleList) or not getattr(attention, "carries_state", True):
        return set()
    last = max(set(range(layers)) - set(folded), default=-1)
    return {layer for layer in folded if layer < last}


@dataclass(frozen=True)
class FoldedLayer:
    """A layer whose gate was folded away: layer `number` of stage `stage`, both from 1; in words `2.3`.

    `2.3*` says that it is `kept`: its module still runs, and multiplies by a constant.
    """

    stage: int
    number: int
    kept: bool = False

    @property
    def word(self) -> str:
        """As it is written."""
        return f"{self.stage}.{self.number}{'*' if self.kept else ''}"

    @classmethod
    def read(cls, word: str) -> "FoldedLayer":
        """Read it. Raises ModelInputError for anything else."""
        if (match := re.fullmatch(r"(\d{1,4})\.(\d{1,4})(\*?)", word)) is None:
            raise ModelInputError(
                "set", f"attention_folded: {word!r} is no layer; give stages and layers such as '1.2 2.3'"
            )
        return cls(int(match[1]), int(match[2]), bool(match[3]))


@dataclass(frozen=True)
class AttentionPlan:
    """Which attention a network has and where; stages and blocks are counted from 1, empty means all of them.

    `folded` are the layers whose gate was folded away: a word for each, as `FoldedLayer` reads them.
    """

    kind: AttentionKind | None = None
    options: dict[str, Any] = field(default_factory=dict)
    stages: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    folded: str = ""

    @property
    def normalized_branch(self) -> bool:
        """Whether the blocks' branches must end with a batch norm."""
        return self.kind is not None and bool(self.kind.build.normalized_branch)

    def check(self, blocks: Sequence[int]) -> None:
        """Raise ModelInputError for a stage or block that a network of so many blocks per stage does not have."""
        if self.kind is None and (self.stages or self.blocks or self.folded):
            name = "stages" if self.stages else "blocks" if self.blocks else "folded"
            raise ModelInputError("set", f"attention_{name} was given, but the network has no attention")
        _check_numbers("stages", self.stages, len(blocks))
        _check_numbers("blocks", self.blocks, max(blocks[n - 1] for n in self.stages or range(1, len(blocks) + 1)))

    def stage(self, number: int, blocks: Sequence[nn.Module], channels: int, names: Sequence[str] = ()) -> Stage:
        """Put blocks and their attention together."""
        stage = Stage(blocks, *self.layers(number, len(blocks), channels), names)
        folded = [layer for layer in map(FoldedLayer.read, self.folded.split()) if layer.stage == number]
        if outside := [layer for layer in folded if not 1 <= layer.number <= sum(stage.connected)]:
            raise ModelInputError("set", f"attention_folded: there is no layer {outside[0].word}")
        if folded:
            kept = {layer.number - 1 for layer in folded if layer.kept}
            stage.fold({layer.number - 1 for layer in folded}, kept, channels)
        return stage

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
