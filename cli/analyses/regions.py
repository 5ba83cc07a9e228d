"""dia-analyze regions: where checkpoints look, in fixed parts of chest X-rays or in masks of any images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import figures
from cli.analyses.trust import check_some, draw
from cli.common.inputs import Inputs
from cli.common.naming import network_name
from cli.common.options import Explanation
from cli.common.publish import Found, Out
from dia_analysis import AnalysisInputError, RegionsResult, compare_regions, measure_regions
from dia_analysis.trust.checks import TrustReport
from dia_models import ModelInputError
from dia_models.data import data_names
from dia_models.data.labels import class_numbers
from dia_models.data.masks import find_masks, read_mask

X_RAYS = ("chest-xray", "pneumoniamnist")  # the data sets whose fixed parts have names


@dataclass(frozen=True)
class Looked:
    """Where the networks look, and the checks of their maps if these were asked for."""

    result: RegionsResult
    picture: np.ndarray
    trust: TrustReport | None = None

    def found(self) -> Found:
        """What to print and to write."""
        document, text = self.result.to_dict(), self.result.summary()
        if self.trust is not None:
            document, text = document | {"trust": self.trust.to_dict()}, f"{text}\n\n{self.trust.summary()}"
        return Found(self.result.about(), document, text, self._write)

    def _write(self, folder: Path) -> None:
        """Write the numbers, the figure and the checks."""
        self.result.write(folder, {"regions": figures.region_shares(self.result, self.picture)})
        if self.trust is not None:
            self.trust.write(folder, draw(self.trust))


def report_regions(
    everyone: Sequence[Inputs], masks: Path | None, explanation: Explanation, out: Out, *, trust: bool
) -> None:
    """Measure, print the tables or the JSON document, and write everything."""
    with out.folder("regions", [each.name for each in everyone], everyone[0].images.data) as taken:
        out.publish(look(everyone, masks, explanation, trust=trust).found(), taken)


def look(everyone: Sequence[Inputs], masks: Path | None, explanation: Explanation, *, trust: bool) -> Looked:
    """Explain the same images with every network and see where the evidence lies."""
    images = everyone[0].images
    if masks is None and images.data in data_names() and images.data not in X_RAYS:
        raise ModelInputError(
            "masks",
            f"none given, and {images.data} has no chest X-rays, whose fixed parts are measured without masks; for "
            "other pictures give images as files (folder:PATH) and a folder of masks",
        )
    found = None if masks is None else find_masks(masks, images.source, images.chosen)
    chosen = [i for i in images.chosen if found is None or i in found]
    results = [_measure(each.on(chosen), found, explanation) for each in everyone]
    images.report_unreadable()
    shown = replace(images, chosen=chosen)
    seen = [each.on(shown.readable()) for each in everyone]
    checked = check_some(seen, shown.readable(), explanation.options()) if trust else None
    left_out = tuple(images.source.name(i) for i in images.chosen if i not in chosen)
    result = replace(compare_regions(results), left_out=left_out, seed=images.seed)
    return Looked(result, _mean_picture(seen[0]), checked)


def _measure(inputs: Inputs, masks: dict[int, tuple[Path, Path]] | None, explanation: Explanation) -> RegionsResult:
    images, read = inputs.images, list[int]()
    size, labels = inputs.checkpoint.info.preprocessing.size, class_numbers(images.source, inputs.classes, images.data)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for batch, rows in inputs.located(list(range(len(images.chosen))), inputs.name):
            indices = [images.chosen[row] for row in rows]
            read.extend(indices)
            yield batch, labels[torch.tensor([int(images.source.labels[i]) for i in indices])]

    def marked(paths: dict[int, tuple[Path, Path]]) -> Iterator[np.ndarray]:
        done = 0
        while new := read[done:]:
            done = len(read)
            yield np.stack([read_mask(*paths[i], size) for i in new])

    about: Any = {
        "model_name": inputs.name,
        "network": network_name(inputs.checkpoint),
        "provenance": inputs.provenance(),
    }
    given = None if masks is None else marked(masks)
    try:
        result = measure_regions(inputs.model, batches(), given, **explanation.options(), **about)
    except AnalysisInputError as error:
        argument = "ckpt" if error.argument == "model" else error.argument
        raise AnalysisInputError(argument, f"{inputs.name}: {error}") from error
    names = tuple(images.source.name(i) for i in read)
    group_of = images.source.group_of
    return replace(result, image_names=names, patients=tuple(map(group_of, names)) if group_of else names)


def _mean_picture(inputs: Inputs) -> np.ndarray:
    """The mean of the pictures in grey, behind which the figure shows the regions."""
    images, size = inputs.images, inputs.checkpoint.info.preprocessing.size
    sums = [batch.pixels[..., 0].double().sum(0) for batch in images.source.batches(images.chosen, 64, size, 1)]
    mean: np.ndarray = (torch.stack(sums).sum(0) / len(images.chosen)).round().to(torch.uint8).numpy()
    return mean
