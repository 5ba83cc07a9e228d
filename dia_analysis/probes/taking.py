"""Take the maps that no module puts out, at the products in which they are used."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.graph import is_counted

Take = Callable[[Tensor], object]


class Taking(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, the operands of some products are handed on.

    `wanted` says, by the number and the name of the operation among the counted ones, which argument is taken (-1: the
    weights of fused attention) and what takes it. Raises AnalysisInputError, from the pass, where another operation is.
    """

    def __init__(self, wanted: dict[int, list[tuple[str, int, Take]]]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.wanted = wanted
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if is_counted(name):
            for operation, operand, take in self.wanted.get(self.number, ()):
                if operation != name:
                    raise AnalysisInputError(
                        "model",
                        f"the network runs {name} where it ran {operation}: it does not do the same in every pass",
                    )
                with _disable_current_modes():  # another capture's, which would count what is computed here
                    take(fused_weights(func, args, kwargs) if operand < 0 else args[operand])
            self.number += 1
        return func(*args, **kwargs)


def fused_weights(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The weights (..., query, key) that a call of fused attention adds up its values with, in the type of the query.

    Computed as `scaled_dot_product_attention` is documented: softmax of query x key, scaled, with the mask or bias.
    """
    given = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
    given |= dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    query, key = given["query"], given["key"]
    if key.shape[-3] != query.shape[-3]:  # several heads of queries share one of keys
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scale = given.get("scale") or query.shape[-1] ** -0.5
    scores = (query * scale) @ key.transpose(-2, -1)
    if given.get("is_causal"):
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    mask = given.get("attn_mask", given.get("attn_bias"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype is torch.bool else scores + mask
    weights: Tensor = scores.softmax(-1)
    return weights
