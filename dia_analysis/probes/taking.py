"""Take maps at the products in which they are used, or put others in their place."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.graph import in_parts, is_counted, tensors_in

Take = Callable[[Tensor], Tensor | None]


class Taking(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, the operands of some products are handed on; what is given back, if anything, takes their place.

    `wanted` says, by the number and the name of the operation among the counted ones, which argument is taken (-1: the
    weights of fused attention) and what takes it. Raises AnalysisInputError, from the pass, where another operation is.
    """

    def __init__(self, wanted: dict[int, list[tuple[str, int, Take]]]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.wanted = wanted
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        parts = in_parts(self, func, args, kwargs)
        if parts is not NotImplemented:
            return parts
        name = func.overloadpacket.__name__
        weights = None
        if is_counted(name):
            for operation, operand, take in self.wanted.get(self.number, ()):
                _check_same(name, operation)
                with _disable_current_modes():  # another capture's, which would count what is computed here
                    new = take(fused_weights(func, args, kwargs) if operand < 0 else args[operand])
                    if new is None:
                        continue
                    if operand < 0:
                        weights = new
                    elif operand == 0 and func._schema.is_mutable:
                        args[0].copy_(new)
                    else:
                        args = (*args[:operand], new, *args[operand + 1 :])
            self.number += 1
        output = func(*args, **kwargs)
        if weights is not None:
            with _disable_current_modes():
                tensors_in(output)[0].copy_(_added_up(weights, arguments_of(func, args, kwargs)["value"]))
        return output


def _check_same(name: str, operation: str) -> None:
    if operation != name:
        raise AnalysisInputError(
            "model",
            f"the network runs {name} where it ran {operation}: it does not do the same in every pass",
        )


def _added_up(weights: Tensor, value: Tensor) -> Tensor:
    """The values added up by the weights, as fused attention gives them."""
    return weights.to(value.dtype) @ _repeated(value, weights.shape[-3])


def _repeated(heads: Tensor, count: int) -> Tensor:
    """Keys or values (..., head, token, channel) for as many heads of queries, several of which may share one."""
    return heads if heads.shape[-3] == count else heads.repeat_interleave(count // heads.shape[-3], dim=-3)


def arguments_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What an operation was given, by name."""
    given = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
    return given | dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs


def fused_weights(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The weights (..., query, key) that a call of fused attention adds up its values with, in the type of the query.

    Computed as `scaled_dot_product_attention` is documented: softmax of query x key, scaled, with the mask or bias.
    """
    given = arguments_of(func, args, kwargs)
    query = given["query"]
    key = _repeated(given["key"], query.shape[-3])
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
