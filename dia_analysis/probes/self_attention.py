"""Self-attention modules: which they are, and how to make them show the maps that fused attention hides."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

SOFTMAX = "attn_drop"  # timm's name for what the maps pass through between softmax and values
FUSED = "fused_attn"  # timm's switch of an attention module


def shows_self_attention(name: str, module: nn.Module) -> bool:
    """Whether a module puts out self-attention's maps (batch, head, row, column).

    That is timm's dropout between softmax and values, and `nn.MultiheadAttention`, whose second output they are.
    """
    return isinstance(module, nn.MultiheadAttention) or name.rpartition(".")[2] == SOFTMAX


@contextmanager
def unfused(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Inside, timm's attention modules that the points `names` belong to compute their maps step by step.

    Fused attention never holds a map in memory, so it calls no dropout whose output could be captured.
    """
    parents = [model.get_submodule(n.rpartition(".")[0]) for n in names if n.rpartition(".")[2] == SOFTMAX]
    fused = [(parent, getattr(parent, FUSED)) for parent in parents if hasattr(parent, FUSED)]
    try:
        for parent, _ in fused:
            setattr(parent, FUSED, False)
        yield
    finally:
        for parent, setting in fused:
            setattr(parent, FUSED, setting)


class HeadWeights:
    """Hooks that make an `nn.MultiheadAttention` compute every head's map, and hide that from its caller.

    Register `ask` to run before the module, and `answer` to run after it, before other hooks.
    """

    def __init__(self, record: Callable[[Tensor], None]):
        self.record = record
        self.needed, self.averaged = True, True

    def ask(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Replace the call's arguments by ones that ask for the maps."""
        call = inspect.signature(module.forward).bind(*args, **kwargs)
        call.apply_defaults()
        self.needed, self.averaged = call.arguments["need_weights"], call.arguments["average_attn_weights"]
        call.arguments.update(need_weights=True, average_attn_weights=False)
        return call.args, call.kwargs

    def answer(self, _: nn.Module, __: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Record the maps and give the output that was asked for."""
        values, weights = output
        self.record(weights)
        if not self.needed:
            return values, None
        return values, weights.mean(-3) if self.averaged else weights
