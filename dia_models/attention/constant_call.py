"""A call of a shared module whose own gate is a constant: it runs for what it hands on to later calls."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import ChannelAttention, Features, recalibrate


class ConstantCall(nn.Module):
    """Runs a shared module at a layer whose gate was folded into the layer before, and adds the shortcut.

    `gate` is the constant. The module is to see the features as they were before they were multiplied by it: means over
    positions are divided after pooling, anything else before. With `multiplies` nothing was folded: the features are
    multiplied here, as where the gate is near 0 and cannot be divided by.
    """

    gate: Tensor

    def __init__(self, channels: int, *, multiplies: bool = False):
        super().__init__()
        self.multiplies = multiplies
        self.register_buffer("gate", torch.ones(channels))

    def forward(
        self,
        attention: ChannelAttention,
        branch: Features,
        shortcut: Features | None,
        state: Any = None,
        *,
        extracted: Tensor | None = None,
    ) -> tuple[Features, Any]:
        """Give the branch, plus the shortcut if there is one, and the module's state for the next call."""
        if extracted is None:
            extracted = self.extract(attention, branch)
        _, state = attention.process(extracted, state)
        if self.multiplies:
            return recalibrate(branch, self.gate[:, None, None].expand(len(branch), -1, 1, 1), shortcut), state
        return branch if shortcut is None else shortcut + branch, state

    def extract(self, attention: ChannelAttention, branch: Features) -> Float[Tensor, "batch ..."]:
        """What the module extracts from the features as they were before they were multiplied."""
        if self.multiplies:
            return attention.extract(branch)
        if type(attention).extract is ChannelAttention.extract:
            return attention.extract(branch) / self.gate
        return attention.extract(branch / self.gate[:, None, None])


@dataclass(frozen=True)
class BoundCall:
    """A constant call with the module that it runs: takes the place of the module in a block."""

    call: ConstantCall
    attention: ChannelAttention

    @property
    def positional(self) -> bool:
        """As the module's."""
        return self.attention.positional

    def extract(self, branch: Features) -> Float[Tensor, "batch ..."]:
        """What the module extracts from the features as they were before they were multiplied."""
        return self.call.extract(self.attention, branch)

    def __call__(
        self, branch: Features, shortcut: Features | None, state: Any = None, *, extracted: Tensor | None = None
    ) -> tuple[Features, Any]:
        """As `ConstantCall.forward`."""
        result: tuple[Features, Any] = self.call(self.attention, branch, shortcut, state, extracted=extracted)
        return result
