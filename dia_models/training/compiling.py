"""Compile a network's training steps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dia_models.errors import ModelInputError


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A compiled forward pass of `model`, which itself stays as it is: its weights, their names and its hooks.

    Raises ModelInputError where nothing can be compiled.
    """
    try:
        torch.compile(_trifle)(next(model.parameters()).detach()[:1])
    except Exception as error:  # what it raises depends on the device, the system and torch's version
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelInputError("set", f"compile=true needs a compiler that works here: {reason}") from error
    return torch.compile(model.forward)


def _trifle(x: Tensor) -> Tensor:
    return (x * 2 + 1).relu()
