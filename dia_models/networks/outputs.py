"""The class scores in what a network gives."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def scores_in(output: Any) -> Tensor | None:
    """The scores (image, class), or one number an image; None if there are none, or no telling which they are.

    They are the output, or its `logits`, or in a dict, tuple or list the only tensor of one or two axes.
    """
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    parts = list(output.values()) if isinstance(output, Mapping) else output
    parts = [named] if named is not None else parts if isinstance(parts, tuple | list) else [parts]
    found = [part for part in parts if isinstance(part, Tensor) and part.ndim in (1, 2)]
    return found[0] if len(found) == 1 else None
