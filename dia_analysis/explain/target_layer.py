"""The layer that a class activation map explains: the one named, or the network's last feature map."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.layout import MAP, Layout, features_in, find_layout, in_proportion
from dia_analysis.explain.targets import as_logits

SHOWN = 8
NEEDED = "(batch, channel, height, width), with the channels last, or (batch, token, channel), of several positions"


@dataclass(frozen=True)
class TargetLayer:
    """One application of one module: `call` counts a module's applications in a forward pass, from 0.

    `layout` says how its output lies over the image.
    """

    name: str
    call: int
    layout: Layout = MAP


def find_target_layer(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    name: str | None = None,
    call: int | None = None,
) -> TargetLayer:
    """Run the network once on `images` and give the layer to explain; a module's last application by default.

    Without a name it is the last block: the innermost module with a convolution in it that puts out the network's
    last feature map. (A bare convolution is extended by the norm and activation that follow it.) In a network that does
    most of its work after that on tokens or with the channels last, as vision transformers do, it is the last norm of
    these, or the last module that holds others. Whether the class scores depend on it is not looked at;
    `last_that_counts` does.
    Raises AnalysisInputError for a name or an application that does not exist, and for a layer whose output does not
    lie over the image.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if name is not None and (not name or name not in modules):
        raise _unknown(name, modules)
    survey = _Survey(modules, images)
    with torch.no_grad():
        survey.run(model, images)
    layer = survey.last_block() if name is None else survey.named(name, modules[name])
    return TargetLayer(layer.name, _checked_call(layer, call), layer.layout)


def last_that_counts(
    model: nn.Module,
    images: Float[Tensor, "batch channel height width"],
    score: Callable[[Float[Tensor, "batch logit"]], Float[Tensor, "batch"]],
) -> TargetLayer | None:
    """The last layer that could be explained and on which the score of the logits depends; None if there is none.

    What ran later may not count: the value of a policy-and-value network, a twin without gradients, all tokens but the
    class token after the last self-attention.
    """
    survey = _Survey(dict(model.named_modules(remove_duplicate=False)), images)
    source = images.detach().requires_grad_()  # so that frozen weights do not end the graph
    with torch.enable_grad():
        total = score(as_logits(survey.run(model, source.clone()))).sum()
    found = [candidate for candidate in survey.ordered() if candidate.features.requires_grad]
    if not total.requires_grad or not found:
        return None
    features = [candidate.features for candidate in found]
    gradients = torch.autograd.grad(total, features, allow_unused=True)
    back = zip(found, gradients, strict=True)
    reached = [c for c, gradient in back if gradient is not None and c.layout.as_map(gradient).any()]
    if not reached:
        return None
    return TargetLayer(survey.names[reached[-1].module], reached[-1].call, reached[-1].layout)


def reaches(layout: Layout, gradient: Tensor | None) -> bool:
    """Whether a gradient came back to a layer; of tokens, whether to those that are parts of the image.

    One that is zero for all tokens came back: nothing speaks for the class, as with a last layer that starts at zero.
    """
    if gradient is None or layout.kind != "tokens":
        return gradient is not None
    return bool(layout.as_map(gradient).any()) or not gradient.any()


@dataclass(frozen=True)
class _Ran:
    """A module that ran, and how often."""

    name: str
    calls: int
    layout: Layout


@dataclass(frozen=True)
class _Candidate:
    """A module whose application could be explained, and its features."""

    module: nn.Module
    call: int
    features: Tensor
    version: int
    layout: Layout = MAP


class _Survey:
    """Watches a forward pass and remembers the blocks that gave a feature map, the last of them last."""

    def __init__(self, modules: dict[str, nn.Module], images: Tensor):
        self.images, self.grid = images.shape, (images.shape[2], images.shape[3])
        self.names = {module: name for name, module in reversed(modules.items())}
        self.calls: Counter[nn.Module] = Counter()
        self.convolving = set(_with_parents(modules))
        self.outputs: dict[nn.Module, Any] = {}  # what it put out last: a tensor's shape, else the type
        self.layouts: dict[nn.Module, Layout] = {}
        self.candidates: list[_Candidate] = []
        self.tokens: list[_Candidate] = []  # those that gave tokens, or features with the channels last
        self.bare = False  # the best so far is a convolution by itself, to be followed by its norm and activation
        self.before = self.after = 0  # applications of childless modules up to the best, and since
        self.elsewhere: nn.Module | None = None  # something spread over positions since the best, but no feature map

    def run(self, model: nn.Module, images: Tensor) -> Any:
        """Run the network under watch."""
        with ExitStack() as hooks:
            for module in self.names:
                hooks.callback(module.register_forward_hook(self.see).remove)
            return model(images)

    def see(self, module: nn.Module, _: Any, output: Any) -> None:
        self.calls[module] += 1
        self.after += not module._modules
        self.outputs[module] = output.shape if isinstance(output, Tensor) else type(output)
        features, layout = self._arranged(output)
        self.layouts.pop(module, None)
        if layout is not None:
            self.layouts[module] = layout
        if not self.names[module]:  # the network itself
            return
        if features is not None and layout == MAP:
            if module in self.convolving and self._fits(features):
                self.grid = (features.shape[2], features.shape[3])
            self._weigh(module, features)
            return
        if isinstance(output, Tensor) and _is_spread(output):
            self.elsewhere = module
        if features is not None and layout is not None:
            self._weigh_tokens(_Candidate(module, self.calls[module] - 1, features, features._version, layout))

    def _arranged(self, output: Any) -> tuple[Tensor | None, Layout | None]:
        """The features in an output and how they lie over the image, if they do."""
        features = features_in(output, 4)
        features = features_in(output, 3) if features is None else features
        return features, None if features is None else find_layout(features.shape, self.images, self.grid)

    def _weigh(self, module: nn.Module, features: Tensor) -> None:
        convolves = module in self.convolving
        if self.candidates and self._fits(self.candidates[-1].features) and not self._fits(features):
            return  # such as relative positions, of which convolutions make something
        best = self.candidates[-1] if self.candidates else None
        taken = _Candidate(module, self.calls[module] - 1, features, features._version)
        if best and best.features is features and best.version == features._version:  # handed on by an outer module
            if convolves and self.bare:
                self.candidates[-1], self.bare = taken, False
            return
        follows = self.bare and best and best.features.shape == features.shape
        shrinks = best and features[0, 0].numel() < best.features[0, 0].numel()
        # Torchvision's Swin, which works channels-last, turns its last features round in a module at the top.
        turned = shrinks and self.elsewhere and "." not in self.names[module]
        if convolves or follows or turned:
            self.candidates.append(taken)
            self.bare = isinstance(module, nn.Conv2d) or not convolves
            self.before, self.after, self.elsewhere = self.before + self.after, 0, None

    def _weigh_tokens(self, taken: _Candidate) -> None:
        """Norms, and modules that hold others, unless these hand on what an inner one gave."""
        last = self.tokens[-1] if self.tokens else None
        handed_on = last is not None and last.features is taken.features and last.version == taken.version
        if not handed_on and (taken.module._modules or "norm" in type(taken.module).__name__.lower()):
            self.tokens.append(taken)

    def _fits(self, features: Tensor) -> bool:
        """Whether a feature map has the image's proportions."""
        return in_proportion(features.shape[2:], (self.images[2], self.images[3]))

    def ordered(self) -> list[_Candidate]:
        """What could be explained, the last of the pass last: of tokens where most is done with these."""
        if self.elsewhere and self.after > self.before:
            return self.tokens or self.candidates
        return self.candidates

    def last_block(self) -> _Ran:
        """The last candidate of the whole pass."""
        found = self.ordered()
        if not found:
            raise AnalysisInputError("layer", f"the network has no feature map; a layer is needed that gives {NEEDED}")
        last = found[-1]
        return _Ran(self.names[last.module], self.calls[last.module], last.layout)

    def named(self, name: str, module: nn.Module) -> _Ran:
        """The module with this name, if its output lies over the image."""
        if not self.calls[module]:
            raise AnalysisInputError("layer", f"{name} never ran: the network does not use it")
        if module not in self.layouts:
            found = self.ordered()
            hint = f"; the network's last such is layer={self.names[found[-1].module]!r}" if found else ""
            raise AnalysisInputError(
                "layer",
                f"{self._describe(module, name)}, which is no feature map; give a layer of {NEEDED}{hint}",
            )
        return _Ran(name, self.calls[module], self.layouts[module])

    def _describe(self, module: nn.Module, name: str | None = None) -> str:
        output = self.outputs[module]
        kind = f"a tensor {tuple(output)}" if isinstance(output, torch.Size) else f"a {output.__name__}"
        return f"{name or self.names[module]} gives {kind}"


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
