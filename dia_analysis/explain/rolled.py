"""What a transformer looks at by all its attention: rollout, and its form weighted by a class's gradient."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dia_analysis.attention.rollout import gradient_rollout, rollout
from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.targets import as_logits
from dia_analysis.probes.arranging import by_image
from dia_analysis.probes.found import FoundAttention, attention_in
from dia_analysis.probes.graph import Graph
from dia_analysis.probes.places import Places, places_of
from dia_analysis.probes.watching import Before, Watcher

ROLLOUT, GRADIENT_ROLLOUT = "rollout", "gradient_rollout"
SOURCES = {ROLLOUT: "Abnar and Zuidema 2020", GRADIENT_ROLLOUT: "Chefer et al. 2021"}
SINGLE = 4  # axes of (image, head, query, key); windows have one more


@dataclass(frozen=True)
class Rolled:
    """Maps of some images, at the grid of the tokens; `name` and `call` are the last attention's."""

    maps: Float[np.ndarray, "image row column"]
    logits: Float[Tensor, "image logit"]
    name: str
    call: int


def rolled_maps(
    model: nn.Module,
    images: Tensor,
    method: str,
    score: Callable[[Float[Tensor, "image logit"]], Float[Tensor, "image"]],
) -> Rolled:
    """How much the tokens that the score reads from the last attention draw on each place of the images.

    These are the tokens whose attention has a gradient: the class token, or those whose mean is classified. Fused
    attention runs unfused, so that outputs may differ in the last digits. The network is left as it was.
    Raises AnalysisInputError for a network without self-attention of one set of tokens, and for a score that does not
    depend on it.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _Kept().watching(model) as kept:
        logits = as_logits(model(images.detach().clone().requires_grad_()))
        total = score(logits).sum()
        found = [one for one, _ in kept.weights]
        values = [value for _, value in kept.weights]
        some = total.requires_grad and all(value.requires_grad for value in values)
        gradients = torch.autograd.grad(total, values, allow_unused=True) if some else [None] * len(values)
    if gradients[-1] is None or not gradients[-1].any():
        raise AnalysisInputError(
            "method", f"{method}: the class scores do not depend on {found[-1].name} through anything with a gradient"
        )
    layers = [_array(value, one) for one, value in kept.weights]
    slopes = [
        np.zeros_like(layer) if gradient is None else _array(gradient, one)
        for layer, gradient, one in zip(layers, gradients, found, strict=True)
    ]
    try:
        flow = rollout(layers) if method == ROLLOUT else gradient_rollout(layers, slopes)
    except AnalysisInputError as error:
        raise AnalysisInputError("method", f"{method}: {error}") from error
    read: Bool[np.ndarray, token] = (slopes[-1] != 0).any((0, 1, 3))
    maps = _over_image(flow[:, read].mean(1), kept.places(found[0]), method)
    return Rolled(maps, logits.detach(), found[-1].name, found[-1].call)


class _Kept(Watcher):
    """Keeps the weights of self-attention as they are in the graph of a pass."""

    graph: Graph

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[tuple[FoundAttention, Tensor]] = []

    def hook(self, model: nn.Module, graph: Graph) -> dict[str, Before]:
        """Raises AnalysisInputError if there is no self-attention, or some of windows."""
        self.graph = graph
        among = [one for one in attention_in(graph) if one.kind == "self-attention" and one.place and one.usable]
        among = [one for one in among if not one.over_channels]
        if not among:
            raise AnalysisInputError("method", "rollout takes transformers: this network has no self-attention")
        return self.hook_products(model, among)

    def take(self, one: FoundAttention, value: Tensor) -> None:
        """Keep the tensor itself."""
        self.weights.append((one, value))

    def places(self, one: FoundAttention) -> Places | None:
        """Where the tokens that a layer draws on lie."""
        return places_of(self.graph, one, one.columns)


def _array(value: Tensor, one: FoundAttention) -> np.ndarray:
    found = by_image(value.detach(), one).double().cpu().numpy()
    if found.ndim != SINGLE:
        raise AnalysisInputError(
            "method", f"rollout takes attention among all tokens; {one.name} attends within windows: use gradcam"
        )
    return np.asarray(found)


def _over_image(
    flow: Float[np.ndarray, "image token"], places: Places | None, method: str
) -> Float[np.ndarray, "image row column"]:
    if places is None:
        raise AnalysisInputError("method", f"{method}: the tokens do not lie over the image")
    index: Any = places.index[0]
    maps = np.zeros((len(flow), places.grid[0] * places.grid[1]))
    maps[:, index[index >= 0]] = flow[:, index >= 0]
    return maps.reshape(len(flow), *places.grid).astype(np.float32)
