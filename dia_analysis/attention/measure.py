"""Capture the attention maps of some images, to look at them."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from dia_analysis.attention.layer import LayerAttention, Query
from dia_analysis.attention.results import AttentionResult
from dia_analysis.attention.rollout import rollout as roll_out
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.batches import blaming_whole_numbers, inputs_of, iterate_batches
from dia_analysis.probes.capture import capture
from dia_analysis.probes.found import FoundAttention, attention_in, watched
from dia_analysis.probes.graph import Graph
from dia_analysis.probes.modes import autocast_off, evaluating
from dia_analysis.probes.places import Places, places_of
from dia_analysis.probes.records import Record
from dia_analysis.results.provenance import Provenance

Pictures = Sequence[UInt8[np.ndarray, "height width 3"]]


def measure_attention(
    model: nn.Module,
    batches: Tensor | Iterable[Any],
    *,
    layers: str | Iterable[str] | None = None,
    heads: Sequence[int] | None = None,
    query: Query = None,
    rollout: bool = False,
    image_names: Sequence[str] | None = None,
    pictures: Pictures = (),
    provenance: Provenance | None = None,
) -> AttentionResult:
    """The attention maps of a network for some images, as it uses them.

    Args:
        model: Any network; it runs in evaluation mode and is left as it was.
        batches: The network's input (batch, channel, height, width), as `iterate_batches` says; all is held at once.
        layers: Shell patterns of the points to look at, as for `capture`; by default all attention. No other is kept.
        heads: The heads, from 0, whose mean is drawn; by default all. All are kept.
        query: Whose attention is drawn: "class", "mean" over queries, or the token at (x, y) pixels from the upper
            left. By default the class token's, else the mean.
        rollout: Whether to roll self-attention out through all layers (`rollout`).
        image_names: What the images are called.
        pictures: The images as they are to be seen (height, width, 3), drawn below the maps.
        provenance: Where they come from.

    Returns:
        The maps of all layers and heads.

    Raises:
        AnalysisInputError: If there is nothing to capture, for what are no images, and for heads, a query or a rollout
            that cannot be.
    """
    reference = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    some = [inputs_of(batch) for batch in iterate_batches(batches)]
    if not sum(map(len, some)):
        raise AnalysisInputError("data", "there are no images to analyze")
    images = torch.cat(some)
    given = images.to(reference.device)
    with evaluating(model), autocast_off(model), torch.no_grad(), blaming_whole_numbers(images):
        graph = watched(getattr(model, "_orig_mod", model), (given,))
        places = {(one.name, one.call): _places(graph, one) for one in attention_in(graph)}
        records = _captured(model, given, layers)
    found = tuple(
        LayerAttention(r.module, r.call, r.kind, _array(r.value), *places.get((r.module, r.call), (None, None)))
        for r in records
    )
    for layer in found:
        if len(layer.maps) != len(images):
            raise AnalysisInputError("images", f"{layer.name} gives {len(layer.maps)} maps for {len(images)} images")
    names = tuple(image_names) if image_names is not None else tuple(f"image {i + 1}" for i in range(len(images)))
    result = AttentionResult(
        layers=found,
        rolled=_rolled(found) if rollout else None,
        size=(images.shape[2], images.shape[3]),
        image_names=names,
        heads=None if heads is None else tuple(heads),
        query=query,
        pictures=tuple(pictures),
        provenance=provenance or Provenance(),
    )
    result.pictures_of(0)  # what cannot be drawn is said now
    return result


def _captured(model: nn.Module, images: Tensor, layers: str | Iterable[str] | None) -> list[Record]:
    try:
        with capture(model, layers) as records:
            model(images)
    except AnalysisInputError as error:
        raise AnalysisInputError("layers" if error.argument == "points" else error.argument, str(error)) from error
    return records.in_order()


def _rolled(layers: Sequence[LayerAttention]) -> LayerAttention:
    """The rollout as a layer of one head."""
    tokens = [layer for layer in layers if layer.kind == "self-attention" and layer.maps.ndim == 4]
    flow = roll_out([layer.maps for layer in tokens])
    return LayerAttention(
        "rollout", 0, "self-attention", flow[:, None].astype(np.float32), tokens[-1].queries, tokens[0].keys
    )


def _places(graph: Graph, one: FoundAttention) -> tuple[Places | None, Places | None]:
    return places_of(graph, one, one.rows), places_of(graph, one, one.columns)


def _array(value: Tensor) -> np.ndarray:
    return (value.float() if value.dtype is torch.bfloat16 else value).cpu().numpy()
