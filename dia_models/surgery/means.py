"""A network whose gates of channels are taken in some passes, and replaced by their means in others."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.batches import inputs_of, iterate_batches, labels_of
from dia_analysis.probes.found import FoundAttention, attention_in
from dia_analysis.probes.graph import Graph
from dia_analysis.probes.modes import autocast_off, evaluating, observing
from dia_analysis.probes.records import Record, of_found
from dia_analysis.probes.replacing import replacing
from dia_analysis.probes.stages import group_stages
from dia_models.errors import ModelInputError

Labelled = tuple[Tensor, Int64[Tensor, "_"]]


@dataclass(frozen=True)
class GateLayer:
    """A layer whose gate is one number a channel.

    Layer `number` of stage `stage`, both from 1, counted as an ablation counts them. `mean` is the gate's mean over
    images (float64), `index` its place among all attention that the network uses.
    """

    stage: int
    number: int
    found: FoundAttention
    index: int
    mean: Float[Tensor, "channel"] = field(repr=False)

    @property
    def word(self) -> str:
        """`2.3` for layer 3 of stage 2."""
        return f"{self.stage}.{self.number}"


@dataclass(frozen=True)
class Answers:
    """Whether the network is right about each image, and the loss in nats, over images of known classes."""

    right: Bool[Tensor, "image"]
    loss: Float[Tensor, "image"]

    @property
    def accuracy(self) -> float:
        """The share of images that are given their class."""
        return float(self.right.double().mean())


def labelled_batches(given: Any, argument: str) -> Iterator[Labelled]:
    """Images and class numbers, batch by batch; images of unknown classes (-1) are left out.

    Raises ModelInputError for batches without class numbers.
    """
    for batch in iterate_batches(given):
        images, labels = inputs_of(batch), labels_of(batch)
        if labels is None or labels.shape != (len(images),) or labels.is_floating_point():
            raise ModelInputError(argument, "a batch has no class number for each image; give (images, labels)")
        known = labels >= 0
        if known.any():
            yield images[known], labels[known].long().cpu()


class MeanGates:
    """Runs a network with its own gates, or with the means of some layers in their place."""

    def __init__(self, model: nn.Module, any_gates: bool):
        self.model, self.any = model, any_gates
        self.device = next(chain(model.parameters(), model.buffers()), torch.empty(0)).device
        self._new: dict[int, Tensor] = {}
        self._take: Callable[[int, FoundAttention, Tensor], None] | None = None
        self._count = 0

    @classmethod
    @contextmanager
    def of(cls, model: nn.Module, seed: int, graph: Graph) -> "Iterator[MeanGates]":
        """The network in evaluation mode, without gradients; after it everything is as it was before.

        `graph` is what a pass showed: without `any` attention that depends on the images, none is replaced.
        """
        gates = cls(model, any(one.usable for one in attention_in(graph)))
        watching = replacing(model, gates._replace) if gates.any else nullcontext()
        try:
            with observing(model, seed), autocast_off(model), torch.no_grad(), watching:
                yield gates
        except AnalysisInputError as error:
            raise ModelInputError("model", str(error)) from error

    def layers(self, batches: Iterable[Tensor]) -> list[GateLayer]:
        """The layers with gates of channels, in forward order, each with its mean over the images."""
        totals: dict[int, Tensor] = {}
        points: dict[int, tuple[FoundAttention, Record]] = {}
        images = 0

        def take(index: int, point: FoundAttention, value: Tensor) -> None:
            points.setdefault(index, (point, of_found(point, value[:1].detach().cpu())))
            if point.kind == "channel":
                total = value.double().flatten(1).sum(0).cpu()
                totals[index] = totals.get(index, torch.zeros(())) + total

        for batch in batches:
            self._take = take
            self.outputs(batch)
            images += len(batch)
        self._take = None
        if not images:
            raise ModelInputError("batches", "there are no images to take the means from")
        means = {index: total / images for index, total in totals.items()}
        return list(_numbered(points, means))

    def answers(self, batches: Iterable[Labelled], layers: Collection[GateLayer] = ()) -> Answers:
        """What it answers with the means of these layers."""
        self._new = {layer.index: layer.mean for layer in layers}
        right, loss = [], []
        for images, labels in batches:
            outputs = self.outputs(images)
            if int(labels.max()) >= outputs.shape[1]:
                raise ModelInputError("batches", f"an image has class {int(labels.max())}, of {outputs.shape[1]}")
            right.append(outputs.argmax(1) == labels)
            loss.append(torch.nn.functional.cross_entropy(outputs.double(), labels, reduction="none"))
        self._new = {}
        return Answers(torch.cat(right), torch.cat(loss))

    def outputs(self, images: Tensor, layers: Collection[GateLayer] | None = None) -> Float[Tensor, "image class"]:
        """The class scores; with the means of some layers. Raises ModelInputError if it gives none."""
        if layers is not None:
            self._new = {layer.index: layer.mean for layer in layers}
        self._count = 0
        return class_scores(self.model, images.to(self.device))

    def _replace(self, point: FoundAttention, value: Tensor) -> Tensor | None:
        index, self._count = self._count, self._count + 1
        if self._take is not None:
            self._take(index, point, value)
        mean = self._new.get(index)
        return None if mean is None else mean.to(value).reshape(1, *value.shape[1:]).expand_as(value)


def class_scores(model: nn.Module, images: Tensor) -> Float[Tensor, "image class"]:
    """What a classifier gives, on the CPU. Raises ModelInputError for anything else."""
    outputs = model(images)
    outputs = getattr(outputs, "logits", outputs)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(images) or outputs.shape[1] < 2:
        given = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ModelInputError("model", f"it gives {given} for {len(images)} images; a classifier is needed here")
    return outputs.detach().cpu()


def right_answers(model: nn.Module, batches: Iterable[Labelled]) -> Bool[Tensor, "image"]:
    """Whether a network by itself is right about each image."""
    device = next(model.parameters()).device
    with evaluating(model), autocast_off(model), torch.no_grad():
        return torch.cat([class_scores(model, images.to(device)).argmax(1) == labels for images, labels in batches])


def _numbered(points: dict[int, tuple[FoundAttention, Record]], means: dict[int, Tensor]) -> Iterator[GateLayer]:
    """The layers with a mean, numbered by stage among all."""
    records = [replace(record, call=index) for index, (_, record) in points.items()]
    places = {
        index: (stage, number)
        for stage, maps in enumerate(group_stages(records), 1)
        for number, (_, index) in enumerate(maps.layers, 1)
    }
    for index, mean in sorted(means.items()):
        yield GateLayer(*places[index], points[index][0], index, mean)
