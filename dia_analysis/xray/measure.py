"""Measure where networks look: the shares of their heatmaps' evidence in masks, or in parts of chest X-rays."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.gradcam import stream_gradcam
from dia_analysis.explain.methods import GRADCAM
from dia_analysis.explain.targets import Target
from dia_analysis.probes.batches import inputs_of, iterate_batches, labels_of
from dia_analysis.results.provenance import Provenance
from dia_analysis.xray.regions import (
    MASKS,
    PRIOR,
    NetworkShares,
    RegionsResult,
    mask_regions,
    prior_regions,
    region_areas,
    region_shares,
)

Masks = Bool[np.ndarray, "_ height width"]  # of a batch, or of all images


def measure_regions(
    model: nn.Module,
    batches: Any,
    masks: Masks | Iterable[Masks] | None = None,
    *,
    target: Target | None = None,
    layer: str | None = None,
    call: int | None = None,
    method: str = GRADCAM,
    class_names: Sequence[str] | None = None,
    model_name: str = "network",
    network: str | None = None,
    image_names: Sequence[str] | None = None,
    patients: Sequence[str] | None = None,
    provenance: Provenance | None = None,
) -> RegionsResult:
    """Explain what a classifier predicts, or one class, and see in which regions the evidence lies.

    Args:
        model: the network.
        batches: images (image, channel, height, width) as the network expects them, batch by batch, alone or with the
            numbers of their classes, which tell what is classified rightly; see `iterate_batches`. Where one is -1, it
            is not told.
        masks: what is marked in each image, at the images' size: one array of all images, or one array a batch, which
            is asked for after the batch; by default the fixed parts of frontal chest X-rays (`prior_regions`).
        target: as `gradcam` takes it, as are `layer`, `call`, `method` and `class_names`.
        model_name: the network's name; `network` is the same for networks that differ in their training's seed only.
        image_names: the images' names, by default #0, #1, ...
        patients: the patient of each image, over whom the intervals are; by default each image is a patient.

    Returns:
        The share of each map's evidence in each region, with intervals over patients.

    Raises:
        AnalysisInputError: if there are no images, for masks of another number or size, and as `gradcam` does.
    """
    seen = _Labels(batches)
    how: dict[str, Any] = {"layer": layer, "call": call, "method": method, "class_names": class_names}
    parts = stream_gradcam(model, seen, target=target, model_name=model_name, **how)
    marked = None if masks is None else iter(_by_batch(masks, seen))
    shares, areas, correct = [], [], list[Any]()
    outlines, explained = 0.0, ""
    for part in parts:
        regions = prior_regions(part.size) if marked is None else mask_regions(_fitting(next(marked, None), part.maps))
        shares.append(region_shares(part.maps, regions))
        areas.append(region_areas(regions, len(part.maps)))
        outlines = outlines + regions.mean(0) * len(part.maps)
        known = seen.labels is not None and seen.labels.ndim == 1 and bool((seen.labels >= 0).all())
        correct.append(part.predicted == seen.labels.cpu().numpy() if known and seen.labels is not None else None)
        explained = part.layer
    if not shares:
        raise AnalysisInputError("batches", "there are no images to explain")
    images = sum(map(len, shares))
    names = tuple(image_names or (f"#{i}" for i in range(images)))
    origin = provenance or Provenance()
    right: Any = None if any(each is None for each in correct) else np.concatenate(correct)
    member = NetworkShares(model_name, network or model_name, np.concatenate(shares), right, origin)
    return RegionsResult(
        source="prior" if masks is None else "masks",
        regions=PRIOR if masks is None else MASKS,
        image_names=names,
        patients=tuple(patients or names),
        areas=np.concatenate(areas),
        outlines=np.asarray(outlines) / images,
        members=(member,),
        layer=explained,
        method=method,
        seed=origin.seed or 0,
        provenance=origin,
    )


def compare_regions(results: Sequence[RegionsResult]) -> RegionsResult:
    """Networks that were measured on the same images and regions, side by side.

    Args:
        results: What `measure_regions` gives for each.

    Returns:
        All of them as one result.

    Raises:
        AnalysisInputError: If there is none, and for results of other images or regions than the first's.
    """
    if not results:
        raise AnalysisInputError("results", "there is no network; give at least one")
    first = results[0]
    for other in results[1:]:
        if (other.image_names, other.regions) != (first.image_names, first.regions):
            message = f"{other.members[0].name} was measured on other images or regions than {first.members[0].name}"
            raise AnalysisInputError("results", message)
    layers = ", ".join(dict.fromkeys(result.layer for result in results))
    return replace(first, members=tuple(m for result in results for m in result.members), layer=layers)


class _Labels:
    """Hands on the images of batches, and keeps the labels and the size of the last."""

    def __init__(self, batches: Any):
        self._batches = iterate_batches(batches)
        self.labels: Tensor | None = None
        self.images = 0

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self._batches:
            images, self.labels = inputs_of(batch), labels_of(batch)
            self.images = len(images)
            yield images


def _by_batch(masks: Masks | Iterable[Masks], seen: _Labels) -> Iterator[Masks]:
    if not isinstance(masks, np.ndarray):
        yield from masks
        return
    done = 0
    while done < len(masks):
        yield masks[done : (done := done + seen.images)]


def _fitting(masks: Any, maps: np.ndarray) -> Masks:
    if masks is None or np.shape(masks) != maps.shape:
        given = "none" if masks is None else "x".join(map(str, np.shape(masks)))
        expected = "x".join(map(str, maps.shape))
        raise AnalysisInputError("masks", f"masks of shape {given} given for images of {expected}; give one an image")
    return np.asarray(masks, dtype=bool)
