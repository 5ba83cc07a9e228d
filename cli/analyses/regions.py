"""dia-analyze regions: where checkpoints look, in fixed parts of chest X-rays or in masks of any images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import figures
from cli.analyses.gradcam import explained_by
from cli.common.inputs import Inputs
from cli.common.publish import Found, Out
from dia_analysis import AnalysisInputError, RegionsResult, TrustReport, compare_regions, measure_regions
from dia_analysis.networks import CHECKED, compare_heatmaps
from dia_models import ModelInputError
from dia_models.data import data_names
from dia_models.data.labels import class_numbers, has_rows, numbered
from dia_models.data.masks import find_masks, masks_beside, read_mask

X_RAYS = ("chest-xray", "chest-xray-sample", "pneumoniamnist")  # the data sets whose fixed parts have names
Looked = tuple[RegionsResult, np.ndarray, TrustReport | None]


@dataclass(frozen=True)
class Explained:
    """Of what: a class by name or number, None for the predicted one; and at which layer, None for the last."""

    target: str | None = None
    layer: str | None = None


def report(everyone: Sequence[Inputs], masks: Path | None, what: Explained, out: Out, *, trust: bool) -> None:
    """Measure, print the tables or the JSON document, and write everything."""
    with out.folder("regions", [each.name for each in everyone], everyone[0].images.data) as taken:
        out.publish(found(*look(everyone, masks, what, trust=trust)), taken, everyone[0].images.source)


def found(result: RegionsResult, picture: np.ndarray, trust: TrustReport | None) -> Found:
    """What to print and to write: where the networks look, and the checks of their maps if there are any."""
    own = Found.of(result, lambda: {"regions": figures.region_shares(result, picture)})
    if trust is None:
        return own
    checks = Found.of(trust)
    return own.beside(checks.write, {"trust": checks.document}, f"\n\n{checks.text}")


def look(everyone: Sequence[Inputs], masks: Path | None, what: Explained, *, trust: bool) -> Looked:
    """Explain the same images with every network and see where the evidence lies; with the images' mean."""
    images = everyone[0].images
    masks = masks or masks_beside(images.source)
    if masks is None and images.data in data_names() and images.data not in X_RAYS:
        raise ModelInputError(
            "masks",
            f"none given, and {images.data} has no chest X-rays, whose fixed parts are measured without masks; for "
            "other pictures give images as files (folder:PATH) and a folder of masks",
        )
    paths = None if masks is None else find_masks(masks, images.source, images.chosen)
    shown = images if paths is None else replace(images, chosen=[i for i in images.chosen if i in paths])
    marks = None if paths is None else {images.source.name(i): each for i, each in paths.items()}
    results = [_measure(each.of(shown), marks, what) for each in everyone]
    images.report_unreadable()
    checked = _checked([each.of(shown.first(CHECKED)) for each in everyone], what) if trust else None
    left_out = tuple(images.source.name(i) for i in images.chosen if i not in shown.chosen)
    result = replace(compare_regions(results), left_out=left_out, seed=images.seed)
    return result, shown.mean_picture(everyone[0].preprocessing), checked


def _checked(everyone: Sequence[Inputs], what: Explained) -> TrustReport | None:
    return compare_heatmaps(everyone, [explained_by(each, trust=True, **vars(what)) for each in everyone]).trust


def _measure(inputs: Inputs, masks: Mapping[str, tuple[Path, Path]] | None, what: Explained) -> RegionsResult:
    images, read = inputs.images, list[str]()
    numbers = None  # of images without labels, or with those of several findings
    if not has_rows(images.source) and (images.source.classes or getattr(images.source, "by_number", False)):
        numbers = class_numbers(images.source, inputs.network.outputs, images.data)

    def batches() -> Iterator[Tensor | tuple[Tensor, Tensor]]:
        for pixels, batch in inputs.shown(inputs.name):
            read.extend(batch.names)
            yield pixels if numbers is None else (pixels, numbered(batch.labels, numbers, images.data))

    def marked(paths: Mapping[str, tuple[Path, Path]]) -> Iterator[np.ndarray]:
        done = 0
        while new := read[done:]:
            done = len(read)
            yield np.stack([read_mask(*paths[name], inputs.preprocessing.framing) for name in new])

    about: Any = {"model_name": inputs.name, "network": inputs.network.label, "class_names": inputs.classes}
    given = None if masks is None else marked(masks)
    try:
        result = measure_regions(inputs.model, batches(), given, provenance=inputs.provenance(), **vars(what), **about)
    except AnalysisInputError as error:
        raise inputs.blamed(error) from error
    group_of = images.source.group_of
    return replace(result, image_names=tuple(read), patients=tuple(map(group_of, read) if group_of else read))
