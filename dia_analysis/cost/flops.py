"""Floating-point operations: those of every operation that a network runs, whatever code torch chooses for it."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from dia_analysis.probes.graph import in_parts
from dia_analysis.probes.modes import observing
from dia_analysis.results.words import quantity

Formula = Callable[..., int]

PLAIN_NAMESPACES = {"aten", "prim", "prims", "torchvision"}
"""Where an operation without a formula is known to be no product, unless its name says that it is one."""
PRODUCT_WORDS = {"mm", "addmm", "hspmm", "sspaddmm", "mv", "matmul", "linear", "convolution", "conv", "conv2d",
                 "conv3d", "attention", "transformer", "rnn", "lstm", "gru", "cdist", "pdist", "fft", "linalg",
                 "cholesky", "solve", "spsolve", "geqrf", "ormqr", "det"}  # fmt: skip
HIDDEN_IN_SCRIPTS = re.compile(r"prim::mkldnn_convolution\b")
PLAIN_WORDS = {"norm", "cross", "check", "flatten", "fused", "reorder"}  # of names with a word from above


@dataclass(frozen=True)
class FlopCount:
    """The operations of one image's forward pass in evaluation mode; a multiply-add is 2.

    Convolutions, products of matrices and vectors, recurrent cells and attention products count, however torch computes
    them; sums, gates, norms, pooling and interpolation do not. `uncounted` are operations, with their calls, that
    compute products but have no formula: quantised and sparse layers, Fourier transforms, other people's kernels,
    scripts optimized for a processor. `unseen` counts parameters that no operation took: they are idle in evaluation
    mode, or used in code that torch cannot see into (a replayed CUDA graph, a library called directly).
    """

    flops: int
    uncounted: Mapping[str, int]
    unseen: int


def flop_count(model: nn.Module, images: Float[Tensor, "batch *features"], *, seed: int = 0) -> FlopCount:
    """Count what one image's forward pass computes, while it runs; the network is left as it was.

    A module that is called many times counts as often. Random numbers that the network draws come from `seed`: one that
    leaves out layers at random in evaluation mode too is counted for one draw.
    """
    counting = _Counting()
    with observing(model, seed), torch.no_grad(), _step_by_step(), counting:
        model(images[:1])
    uncounted = counting.uncounted + _optimized_scripts(model)
    return FlopCount(counting.flops, dict(uncounted), counting.unseen(model))


def count_flops(model: nn.Module, images: Float[Tensor, "batch *features"]) -> int:
    """The floating-point operations of one image's forward pass in evaluation mode (`FlopCount` says which).

    Args:
        model: The network; it is left as it was.
        images: An input of the network, images first.

    Returns:
        The number for one image; a multiply-add counts as 2. A warning names operations that cannot be counted.

    Raises:
        AnalysisInputError: For a scripted network.
    """
    found = flop_count(model, images)
    if found.uncounted:
        warnings.warn(f"not counted: {operations_text(found.uncounted)}", stacklevel=2)
    return found.flops


def operations_text(uncounted: Mapping[str, int]) -> str:
    """Operations and how often each ran, in words."""
    return ", ".join(f"{name} ({quantity(calls, 'call')})" for name, calls in sorted(uncounted.items()))


@contextmanager
def _step_by_step() -> Iterator[None]:
    """Inside, torch neither compiles nor fuses, and computes what a transformer's padding mask hides."""
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.compiler.set_stance("force_eager"), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation that is run inside, and adds up its formula."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.uncounted: Counter[str] = Counter()
        self.storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = _formula(func)
        if formula is None and not isinstance(func, HigherOrderOperator):
            parts = in_parts(self, func, args, kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self.storages |= _storages((args, kwargs)) - _storages(out)  # a view computes nothing
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        elif _hides_products(func):
            self.uncounted[str(func).removesuffix(".default")] += 1
        return out

    def unseen(self, model: nn.Module) -> int:
        """How many parameters no operation has taken."""
        return sum(
            p.numel()
            for p in model.parameters()
            if type(p) is nn.Parameter and _is_plain(p) and _storage(p) not in self.storages
        )


def _formula(func: Any) -> Formula | None:
    if isinstance(func, HigherOrderOperator):
        return flop_registry.get(func)
    return FORMULAS.get(func._schema.name) or flop_registry.get(func._overloadpacket)


def _hides_products(func: Any) -> bool:
    if isinstance(func, HigherOrderOperator) or func.namespace not in PLAIN_NAMESPACES:
        return True
    words = set(func._opname.strip("_").split("_"))
    return bool(words & PRODUCT_WORDS) and not words & PLAIN_WORDS


def _is_plain(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout is torch.strided and not leaf.is_nested


def _storages(values: Any) -> set[int]:
    return {_storage(leaf) for leaf in tree_leaves(values) if _is_plain(leaf)}


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _optimized_scripts(model: nn.Module) -> Counter[str]:
    """What `torch.jit.optimize_for_inference` took out of torch's sight, by how often it stands in the scripts."""
    graphs = [str(getattr(script, "inlined_graph", "")) for script in _scripts(model)]
    return Counter(operation for graph in graphs for operation in HIDDEN_IN_SCRIPTS.findall(graph))


def _scripts(module: nn.Module) -> Iterator[torch.jit.ScriptModule]:
    if isinstance(module, torch.jit.ScriptModule):
        yield module
        return
    for child in module.children():
        yield from _scripts(child)


def _product(a: Tensor, b: Tensor, **_: Any) -> int:
    """Matrices, batches of them, and vectors: 2 for each value of `a` and column of `b`."""
    return 2 * a.numel() * (b.shape[-1] if b.ndim > 1 else 1)


def _added_product(_: Tensor, a: Tensor, b: Tensor, **__: Any) -> int:
    return _product(a, b)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """(image, head, token, feature): every query with every key, masked or not, and the weights with the values."""
    return 2 * prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _recurrent(steps: Tensor, weights: list[Tensor]) -> int:
    """Every matrix of a recurrent layer, once for each step of each sequence, padded or packed."""
    return 2 * prod(steps.shape[:-1]) * sum(weight.numel() for weight in weights if weight.ndim > 1)


def _layer_of_cells(steps: Tensor, *weights: Any, **_: Any) -> int:
    return _recurrent(steps, list(weights[:2]))  # those for the input and for what was kept; then the biases


def _layers_of_cells(steps: Tensor, weights: list[Tensor], *_: Any, **__: Any) -> int:
    return _recurrent(steps, weights)


def _layers_of_cells_mps(steps: Tensor, _: Any, weights: list[Tensor], *__: Any, **___: Any) -> int:
    return _recurrent(steps, weights)


def _multi_head(query: Tensor, key: Tensor, value: Tensor, width: int, heads: int, *rest: Any, **_: Any) -> int:
    """torch's fused self-attention: projections of queries, keys, values and output, and the attention products."""
    projections = [rest[0], rest[2]]
    return _fused_attention(query, key, width, projections)


def _encoder_layer(tokens: Tensor, width: int, heads: int, *rest: Any, **_: Any) -> int:
    """torch's fused transformer layer: self-attention as above, and the two layers after it."""
    return _fused_attention(tokens, tokens, width, [rest[0], rest[2], rest[11], rest[13]])


def _fused_attention(query: Tensor, key: Tensor, width: int, weights: list[Tensor]) -> int:
    """Tokens are (image, token, feature); the images of a nested tensor may differ in their number."""
    lengths = [(len(q), len(k)) for q, k in zip(query.unbind(), key.unbind(), strict=True)]
    tokens, pairs = sum(q for q, _ in lengths), sum(q * k for q, k in lengths)
    return 2 * tokens * sum(weight.numel() for weight in weights) + 4 * pairs * width


def _trilinear(a: Tensor, weight: Tensor, b: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    """nn.Bilinear: for each output, first the weights with one input, then the result with the other."""
    outputs = out_val.numel()
    return 2 * outputs * weight[0].numel() + 2 * outputs * weight.shape[-1]


def _deformable(_: Tensor, weight: Tensor, *__: Any, out_val: Tensor, **___: Any) -> int:
    """A convolution whose inputs are interpolated: the product alone."""
    return 2 * out_val.numel() * weight[0].numel()


FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(("aten::mm", "aten::bmm", "aten::mv", "aten::dot", "aten::vdot"), _product),
    **dict.fromkeys(("aten::addmm", "aten::addmm_", "aten::_addmm_activation"), _added_product),
    **dict.fromkeys(("aten::addmv", "aten::addmv_"), _added_product),
    **dict.fromkeys(("aten::addbmm", "aten::addbmm_", "aten::baddbmm", "aten::baddbmm_"), _added_product),
    "aten::_scaled_dot_product_flash_attention": _attention,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten::_scaled_dot_product_efficient_attention": _attention,
    "aten::_scaled_dot_product_cudnn_attention": _attention,
    "aten::_scaled_dot_product_fused_attention_overrideable": _attention,
    "aten::_scaled_dot_product_attention_math_for_mps": _attention,
    "aten::_native_multi_head_attention": _multi_head,
    "aten::_transformer_encoder_layer_fwd": _encoder_layer,
    "aten::mkldnn_rnn_layer": _layer_of_cells,
    "aten::_cudnn_rnn": _layers_of_cells,
    "aten::miopen_rnn": _layers_of_cells,
    "aten::_lstm_mps": _layers_of_cells_mps,
    "aten::_trilinear": _trilinear,
    "torchvision::deform_conv2d": _deformable,
}
"""By operation, whatever its variant; of all others torch's own, and those registered with it, are used."""
