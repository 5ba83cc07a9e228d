"""A network that runs with its own attention maps, or with others in their place."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.targets import as_logits
from dia_analysis.probes.batches import blaming_whole_numbers
from dia_analysis.probes.found import FoundAttention
from dia_analysis.probes.modes import autocast_off, observing
from dia_analysis.probes.records import Record, of_found
from dia_analysis.probes.replacing import replacing
from dia_analysis.probes.stages import group_stages
from dia_analysis.results.words import quantity

Maps = list[Float[Tensor, "image _"]]  # by layer: (image, element)


@dataclass(frozen=True)
class Layer:
    """One attention layer: layer `number` of stage `stage`, both from 1.

    `name` and `call` are those of its point, `shape` is that of its map, and `kind` says what kind of map it is.
    """

    stage: int
    number: int
    name: str
    call: int
    kind: str
    shape: tuple[int, ...]

    @property
    def is_self_attention(self) -> bool:
        """Whether its map adds up values, so that it has queries and keys."""
        return self.kind in ("self-attention", "cross-covariance")


class ReplaceableMaps:
    """A network whose maps are taken in some passes and replaced in others; layers are counted in forward order."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.device = next(chain(model.parameters(), model.buffers()), torch.empty(0)).device
        self.layers: tuple[Layer, ...] = ()
        self._new: Mapping[int, Tensor] | None = None
        self._taken: list[Record] = []
        self._points: list[Any] = []
        self._known: list[Any] = []

    @classmethod
    @contextmanager
    def of(
        cls, model: nn.Module, points: str | Iterable[str] | None, seed: int, *, state: bool = False
    ) -> "Iterator[ReplaceableMaps]":
        """The network in evaluation mode, without gradients; after it everything is as it was before.

        With `state`, whatever reads a map later in the pass sees the new one, too.
        """
        maps = cls(model)
        replaced = replacing(model, maps._replace, points, state=state)
        with observing(model, seed), autocast_off(model), torch.no_grad(), replaced:
            yield maps

    def untouched(self, images: Tensor) -> tuple[Float[Tensor, "image class"], Maps]:
        """What the network answers, and its maps, a row for each image.

        Raises AnalysisInputError if it is no classifier, or runs other layers than before.
        """
        self._taken.clear()
        outputs = self._run(images, None)
        if not self.layers:
            self.layers = _numbered(self._taken, self._points)
            self._known = [(*_key(point), point.shape) for point in self._points]
        for record in self._taken:
            if len(record.value) != len(images):
                raise AnalysisInputError(
                    "points", f"{record.module} gives {len(record.value)} maps for {len(images)} images; leave it out"
                )
        if [(*_key(point), point.shape) for point in self._points] != self._known:
            raise AnalysisInputError(
                "model", "the network ran other layers, or maps of another size, for this batch than for the first one"
            )
        return outputs, [record.value.flatten(1) for record in self._taken]

    def replaced(self, images: Tensor, new: Mapping[int, Tensor]) -> Float[Tensor, "image class"]:
        """What the network answers with other maps (image, element) in some of its layers."""
        outputs = self._run(images, new)
        if list(map(_key, self._points)) != [key[:3] for key in self._known]:
            raise AnalysisInputError("model", "the network runs other layers when its maps are replaced")
        return outputs

    def _run(self, images: Tensor, new: Mapping[int, Tensor] | None) -> Float[Tensor, "image class"]:
        self._new = new
        self._points.clear()
        with blaming_whole_numbers(images):
            outputs = as_logits(self.model(images.to(self.device)))
        if len(outputs) != len(images) or outputs.shape[1] < 2:
            given = f"{tuple(outputs.shape)} for {quantity(len(images), 'image')}"
            raise AnalysisInputError("model", f"it gives {given}; ablation takes classifiers: (image, class)")
        return outputs.cpu()

    def _replace(self, point: FoundAttention, value: Tensor) -> Tensor | None:
        number = len(self._points)
        self._points.append(point)
        if self._new is None:
            kept = value.detach().to("cpu", copy=True)
            self._taken.append(replace(of_found(point, kept), call=number))
            return None
        new = self._new.get(number)
        return None if new is None else new.reshape(value.shape)


def _key(point: FoundAttention) -> tuple[str, int, int | None]:
    return point.name, point.call, point.output


def _numbered(records: list[Record], points: list[FoundAttention]) -> tuple[Layer, ...]:
    """The layers in forward order, each with its place in the stages; the records' calls count the layers."""
    found: dict[int, Layer] = {}
    for stage, maps in enumerate(group_stages(records), 1):
        for number, (name, index) in enumerate(maps.layers, 1):
            found[index] = Layer(stage, number, name, points[index].call, maps.kind, maps.shape or ())
    return tuple(found[index] for index in sorted(found))
