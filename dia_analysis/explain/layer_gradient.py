"""A layer's features and the gradient of a score with respect to them, at little more than a pass's cost."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.target_layer import TargetLayer, reaches
from dia_analysis.explain.targets import as_logits


class NotReachedError(AnalysisInputError):
    """The score does not depend on a layer."""


@dataclass(frozen=True)
class Explained:
    """A layer's features, the gradient of the score with respect to them, and the network's logits."""

    features: Float[Tensor, "image channel row column"]
    gradient: Float[Tensor, "image channel row column"]
    logits: Float[Tensor, "image logit"]


def features_and_gradient(
    model: nn.Module,
    images: Tensor,
    layer: TargetLayer,
    score: Callable[[Float[Tensor, "image logit"]], Float[Tensor, "image"]],
) -> Explained:
    """Run the network without a graph up to the layer and with one from there on, and go back only that far.

    `score` turns logits into one number per image. Nothing of the network changes; no gradient reaches its parameters.
    Raises NotReachedError if the score does not depend on the layer.
    """
    cut = _Cut(layer)
    with ExitStack() as hooks, torch.no_grad():  # the cut turns gradients on; leaving restores the caller's setting
        hooks.callback(model.get_submodule(layer.name).register_forward_hook(cut.make).remove)
        output = model(images)
    logits = as_logits(output)
    with torch.enable_grad():
        total = score(logits).sum()
    if cut.features is None:
        raise AnalysisInputError("layer", f"call {layer.call} of {layer.name} did not run for this batch")
    gradient = torch.autograd.grad(total, cut.features, allow_unused=True)[0] if total.requires_grad else None
    if gradient is None or not reaches(layer.layout, gradient):
        raise NotReachedError(
            "layer", f"the class scores do not depend on {layer.name} through anything that has a gradient"
        )
    as_map = layer.layout.as_map
    return Explained(as_map(cut.features.detach()), as_map(gradient), logits.detach())


class _Cut:
    """A forward hook that puts a leaf in place of the layer's features and turns gradients on for what follows."""

    def __init__(self, layer: TargetLayer):
        self.layer = layer
        self.calls = 0
        self.features: Tensor | None = None

    def make(self, _: nn.Module, __: Any, output: Any) -> Any:
        self.calls += 1
        if self.calls - 1 != self.layer.call:
            return output
        features = self.layer.layout.tensor(output)
        assert features is not None  # the survey saw that it has them
        torch.set_grad_enabled(True)
        self.features = features.detach().clone().requires_grad_()
        # Again a copy, since what follows may change it in place, which a leaf does not allow.
        return _replaced(output, features, self.features.clone())


def _replaced(output: Any, old: Tensor, new: Tensor) -> Any:
    if isinstance(output, Tensor):
        return new
    parts = [new if part is old else part for part in output]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
