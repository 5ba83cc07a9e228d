"""A network as analyses can take it: the plain module, on the CPU, that takes images and nothing else."""

import inspect
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from dia_models.data.preprocessing import Preprocessing
from dia_models.errors import ModelInputError, one_line
from dia_models.networks.outputs import scores_in
from dia_models.user_code import seeded

USUAL_SIZES = (224, 32, 64, 28, 96, 128, 160, 256, 299, 384, 112, 80, 48, 8, 19, 40, 192, 240, 320, 331, 448, 512)
HALVES = (torch.float16, torch.bfloat16)


def plain(model: nn.Module) -> nn.Module:
    """The network without torch.compile and DataParallel around it or its parts, on the CPU, in float32."""
    while (inner := _inner(model)) is not None:
        model = inner
    for name, module in list(model.named_modules()):
        module._compiled_call_impl = None  # what module.compile() sets
        if name and (inner := _inner(module)) is not None:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, inner)
    if any(t.dtype in HALVES for t in _tensors(model)):
        model = model.float()
    return model if any(t.is_meta for t in _tensors(model)) else model.cpu()


def refuse_opaque(model: nn.Module, name: str) -> None:
    """Raise ModelInputError for a network, or a part of it, into which nothing can be seen."""
    for place, module in model.named_modules():
        where = f"its part {place}" if place else "it"
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelInputError(
                "model",
                f"{name}: {where} is scripted or traced (TorchScript), so nothing inside can be watched; make the "
                "network from its Python code, with the environment variable PYTORCH_JIT=0 where that scripts parts",
            )
        if isinstance(module, torch.fx.GraphModule) and "eval" in vars(module):  # it has been replaced by a refusal
            raise ModelInputError(
                "model",
                f"{name}: {where} is exported (torch.export), one graph in which no module runs; make the network from "
                "its Python code, and load its weights into that",
            )
        if ".quantized" in type(module).__module__ or any(t.is_quantized for t in _tensors(module)):
            raise ModelInputError(
                "model", f"{name}: {where} is quantized, so it has no gradients; give the network in float32"
            )


def refuse_empty(model: nn.Module, name: str) -> None:
    """Raise ModelInputError for a network without values."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if (first := next((name for name, t in tensors.items() if t.is_meta), None)) is not None:
        raise ModelInputError(
            "model",
            f"{name}: {one_line(first, 60)} is on the meta device, without values; make it on the CPU, or give weights",
        )


def gives_probabilities(model: nn.Module, shown: Preprocessing) -> bool:
    """Whether all of its outputs lie within 0 and 1 whatever it is shown, here noise of thirty times the usual size."""
    device = next(_tensors(model), torch.empty(0)).device
    with torch.no_grad(), seeded(0), redirect_stdout(sys.stderr):
        found = scores_in(model.eval()(30 * torch.randn(8, len(shown.mean), *shown.size, device=device)))
    return found is not None and bool(((found >= 0) & (found <= 1)).all())


class Trial:
    """Runs a network once on a black image to see whether it takes it, and what it gives."""

    def __init__(self, model: nn.Module, name: str):
        self.model, self.name = model, name

    def outputs(self, shown: Preprocessing) -> int | None:
        """How many class scores it gives; None if its output is something else.

        Raises ModelInputError if it does not take such an image; it says which it takes.
        """
        self._check_signature()
        try:
            return _scores(self._run(shown))
        except Exception as error:  # whatever a foreign network raises
            reason = one_line(error, 110)
            raise ModelInputError(
                "image_size",
                f"{self.name} takes no images of {_words(shown)} ({type(error).__name__}: {reason}){self._hint(shown)}",
            ) from error

    def size(self, shown: Preprocessing) -> tuple[int, int] | None:
        """The first of some usual sizes that it takes; None if there is none."""
        sizes = ((n, n) for n in USUAL_SIZES)
        return next((size for size in sizes if self._takes(_sized(shown, size))), None)

    def _hint(self, shown: Preprocessing) -> str:
        for channels in (len(shown.mean), 1, 3):
            other = shown.model_copy(update={"mean": (0.5,) * channels, "std": (0.5,) * channels})
            if (size := self.size(other)) is not None:
                return f"; it takes {_words(_sized(other, size))}"
        return "; say what it takes: image_size and channels"

    def _takes(self, shown: Preprocessing) -> bool:
        try:
            self._run(shown)
        except Exception:
            return False
        return True

    def _run(self, shown: Preprocessing) -> Any:
        with torch.no_grad(), seeded(0), redirect_stdout(sys.stderr):
            return self.model(torch.zeros(1, len(shown.mean), *shown.size))

    def _check_signature(self) -> None:
        parameters = inspect.signature(self.model.forward).parameters.values()
        needed = [
            p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ]
        if len(needed) > 1:
            raise ModelInputError(
                "model",
                f"{self.name}: its forward takes {', '.join(map(str, needed))}; analyses show it images alone. Name a "
                "module of yours that holds it and whose forward takes the images",
            )


def _inner(module: nn.Module) -> nn.Module | None:
    """The network that another one only runs."""
    if isinstance(module, DataParallel | DistributedDataParallel):
        wrapped: nn.Module = module.module
        return wrapped
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else None


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


def _scores(output: Any) -> int | None:
    if (scores := scores_in(output)) is None:
        return None
    return scores.shape[1] if scores.ndim == 2 else 1


def _words(shown: Preprocessing) -> str:
    channels = len(shown.mean)
    return f"{shown.height}x{shown.width} with {channels} channel{'s' * (channels > 1)}"


def _sized(shown: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    return shown.at(*size)
