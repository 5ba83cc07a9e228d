"""The gate of a learned vector in place of the image's: ASR (Zhong et al., ECCV 2024, arXiv 2304.06345)."""

from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from dia_models.attention.base import ChannelAttention, Features, recalibrate

START = 0.1  # of every element of the vector, as published


class ConstantVector(ChannelAttention):
    """A module of attention whose gate is made of a learned vector of as many channels, the same for every image.

    In training the vector goes through the module as features of one position would, so that both learn. Afterwards
    the gate is a constant, which `fold_attention` multiplies into the layer before, exactly. Classes of it are made by
    `with_constant_vector`, each from that of a module.
    """

    positional = False
    carries_state = False
    vector: nn.Parameter

    def constant(self) -> Tensor:
        """The gate (1, channel)."""
        gate, _ = self.process(super().extract(self.vector[None, :, None, None]), None)
        return gate

    def forward(
        self, branch: Features, shortcut: Features | None, state: Any = None, *, extracted: Tensor | None = None
    ) -> tuple[Features, Any]:
        """Give `shortcut + gate * branch`; nothing is extracted from the branch, and nothing carried along depth."""
        gate = self.gate(self.constant().to(branch.dtype).expand(len(branch), -1))
        return recalibrate(branch, gate[:, :, None, None], shortcut), state


def suits_vector(module: type) -> bool:
    """Whether a module makes a gate of features of one position, and so of a vector."""
    return issubclass(module, ChannelAttention) and not module.compares_positions


@cache
def with_constant_vector(module: type[ChannelAttention]) -> type[ConstantVector]:
    """The class of a module whose gate is that of a learned vector: the module's options, N more parameters."""

    def start(self: Any, channels: int, **options: Any) -> None:
        module.__init__(self, channels, **options)  # type: ignore[call-arg]
        self.vector = nn.Parameter(torch.full((channels,), START))

    own = {"__init__": start, "__module__": __name__, "__signature__": signature(module), "__doc__": module.__doc__}
    return type(f"Constant{module.__name__}", (ConstantVector, module), own)
