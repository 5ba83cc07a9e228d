"""The layer that a class activation map explains: the one named, or the network's last feature map."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError

SHOWN = 8


@dataclass(frozen=True)
class TargetLayer:
    """One application of one module: `call` counts a module's applications in a forward pass, from 0."""

    name: str
    call: int


def find_target_layer(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    name: str | None = None,
    call: int | None = None,
) -> TargetLayer:
    """Run the network once on `images` and give the layer to explain; a module's last application by default.

    Without a name it is the last block: the innermost module with a convolution in it that puts out the network's
    last feature map. (A bare convolution is extended by the norm and activation that follow it.)
    Raises AnalysisInputError for a name, an application or a feature map (batch, channel, height, width) that does
    not exist, and for a network that does most of its work after its last feature map, as vision transformers do.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if name is not None and (not name or name not in modules):
        raise _unknown(name, modules)
    survey = _Survey(modules, images)
    with ExitStack() as hooks, torch.no_grad():
        for module in survey.names if name is None else [modules[name]]:
            hooks.callback(module.register_forward_hook(survey.see).remove)
        model(images)
    layer = survey.last_block() if name is None else survey.named(name, modules[name])
    return TargetLayer(layer.name, _checked_call(layer, call))


def feature_map(output: Any) -> Tensor | None:
    """The features in a module's output: the output itself, or the first 4-d tensor of a tuple or list."""
    parts = output if isinstance(output, (tuple, list)) else [output]
    return next((part for part in parts if isinstance(part, Tensor) and part.ndim == 4), None)


@dataclass(frozen=True)
class _Ran:
    """A module that ran, and how often."""

    name: str
    calls: int


class _Survey:
    """Watches a forward pass and remembers the last block: its module, and the features themselves."""

    def __init__(self, modules: dict[str, nn.Module], images: Tensor):
        self.batch, self.image_size = len(images), (images.shape[2], images.shape[3])
        self.names = {module: name for name, module in reversed(modules.items())}
        self.calls: Counter[nn.Module] = Counter()
        self.convolving = set(_with_parents(modules))
        self.outputs: dict[nn.Module, Any] = {}  # what it put out last: a tensor's shape, else the type
        self.maps: set[nn.Module] = set()
        self.best: nn.Module | None = None
        self.features: Tensor | None = None
        self.version = 0
        self.bare = False  # the best so far is a convolution by itself, to be followed by its norm and activation
        self.before = self.after = 0  # applications of childless modules up to the best, and since
        self.elsewhere: nn.Module | None = None  # something spread over positions since the best, but no feature map

    def see(self, module: nn.Module, _: Any, output: Any) -> None:
        self.calls[module] += 1
        self.after += not module._modules
        features = output if isinstance(output, Tensor) and output.ndim == 4 else feature_map(output)
        self.outputs[module] = output.shape if isinstance(output, Tensor) else type(output)
        is_map = features is not None and self._is_map(features)
        (self.maps.add if is_map else self.maps.discard)(module)
        if not self.names[module]:  # the network itself
            return
        if features is not None and is_map:
            self._weigh(module, features)
        elif isinstance(output, Tensor) and _is_spread(output):
            self.elsewhere = module

    def _weigh(self, module: nn.Module, features: Tensor) -> None:
        convolves = module in self.convolving
        if self.features is features and self.version == features._version:  # handed on by an enclosing module
            if convolves and self.bare:
                self.best, self.bare = module, False
            return
        follows = self.bare and self.features is not None and self.features.shape == features.shape
        shrinks = self.features is not None and features[0, 0].numel() < self.features[0, 0].numel()
        # Torchvision's Swin, which works channels-last, turns its last features round in a module at the top.
        turned = shrinks and self.elsewhere and "." not in self.names[module]
        if convolves or follows or turned:
            self.best, self.features, self.version = module, features, features._version
            self.bare = isinstance(module, nn.Conv2d) or not convolves
            self.before, self.after, self.elsewhere = self.before + self.after, 0, None

    def last_block(self) -> _Ran:
        """The best after the whole pass."""
        if self.best is None:
            raise AnalysisInputError(
                "layer", "the network has no feature map (batch, channel, height, width) of more than one position"
            )
        name = self.names[self.best]
        if self.elsewhere and self.after > self.before:
            raise AnalysisInputError(
                "layer",
                f"the network does most of its work after its last feature map, that of {name!r}, on something else "
                f"({self._describe(self.elsewhere)}); name a layer that gives (batch, channel, height, width)",
            )
        return _Ran(name, self.calls[self.best])

    def named(self, name: str, module: nn.Module) -> _Ran:
        """The module with this name, if it gives a feature map."""
        if not self.calls[module]:
            raise AnalysisInputError("layer", f"{name} never ran: the network does not use it")
        if module not in self.maps:
            raise AnalysisInputError(
                "layer",
                f"{self._describe(module)}, which is no feature map: (batch, channel, height, width) with more than "
                "one position is needed",
            )
        return _Ran(name, self.calls[module])

    def _describe(self, module: nn.Module) -> str:
        output = self.outputs[module]
        kind = f"a tensor {tuple(output)}" if isinstance(output, torch.Size) else f"a {output.__name__}"
        return f"{self.names[module]} gives {kind}"

    def _is_map(self, features: Tensor) -> bool:
        """Whether it is (batch, channel, height, width) with several positions, and not (..., width, channel)."""
        first, second, third = features.shape[1:]
        channels_last = self._fits(first, second) and not self._fits(second, third)
        return len(features) == self.batch and second * third > 1 and not channels_last

    def _fits(self, height: int, width: int) -> bool:
        """Whether a map of this size has the image's proportions, up to one row or column."""
        return abs(height * self.image_size[1] - width * self.image_size[0]) <= max(self.image_size)


def _with_parents(modules: dict[str, nn.Module]) -> Iterator[nn.Module]:
    """The convolutions and every module that has one in it."""
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d):
            parts = name.split(".") if name else []
            yield from (modules[".".join(parts[:depth])] for depth in range(len(parts) + 1))


def _is_spread(output: Tensor) -> bool:
    """Whether it has several positions: tokens (batch, token, channel) or (batch, height, width, channel)."""
    return output.ndim in (3, 4) and sum(size > 1 for size in output.shape[1:]) > 1


def _checked_call(ran: _Ran, call: int | None) -> int:
    if call is None:
        return ran.calls - 1
    if not 0 <= call < ran.calls:
        times = "once, as call 0" if ran.calls == 1 else f"{ran.calls} times, as calls 0 to {ran.calls - 1}"
        raise AnalysisInputError("call", f"there is no call {call} of {ran.name}: it runs {times}")
    return call


def _unknown(name: str, modules: dict[str, nn.Module]) -> AnalysisInputError:
    near = get_close_matches(name, modules, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    top = [module for module in modules if module and module.count(".") < 2]
    more = ", ..." if len(top) > 2 * SHOWN else ""
    return AnalysisInputError(
        "layer", f"no module is named {name!r}; {hint}Its modules: {', '.join(top[: 2 * SHOWN])}{more}"
    )
