"""dia-analyze regions: where checkpoints look, in fixed parts of chest X-rays or in masks of any images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import figures
from cli.analyses.gradcam import Explanation
from cli.analyses.trust import check_some, draw
from cli.common.classes import class_numbers
from cli.common.grey import warn_of_colour
from cli.common.inputs import Inputs
from cli.common.naming import network_name
from cli.common.publish import Found, Out
from dia_analysis import AnalysisInputError, NetworkShares, RegionsResult, stream_gradcam
from dia_analysis.trust.checks import TrustReport
from dia_analysis.xray.regions import MASKS, PRIOR, mask_regions, prior_regions, region_areas, region_shares
from dia_models import ModelInputError
from dia_models.data import FileImages, ImageSource, data_names
from dia_models.data.masks import find_mask, read_mask

X_RAYS = ("chest-xray", "pneumoniamnist")  # the data sets whose fixed parts have names


@dataclass(frozen=True)
class Regions:
    """The regions of the chosen images: those of masks, or the same fixed ones for all."""

    source: ImageSource
    masks: dict[int, Path] | None

    def of(self, indices: Sequence[int], size: tuple[int, int]) -> np.ndarray:
        """The regions of the images at these indices, as a network sees them: (image or 1, region, height, width)."""
        if self.masks is None:
            return prior_regions(size)
        assert isinstance(self.source, FileImages)
        return mask_regions(np.stack([read_mask(self.masks[i], self.source.paths[i], size) for i in indices]))


@dataclass(frozen=True)
class Outcome:
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


def report(
    everyone: Sequence[Inputs],
    masks: Path | None,
    explanation: Explanation,
    out: Out,
    *,
    trust: bool,
    as_json: bool,
) -> None:
    """Measure, print the tables or the JSON document, and write everything."""
    with out.folder("regions", [each.checkpoint.name for each in everyone], everyone[0].data) as taken:
        outcome = measure(everyone, masks, explanation, trust=trust)
        outcome.found().publish(taken, as_json=as_json)


def measure(everyone: Sequence[Inputs], masks: Path | None, explanation: Explanation, *, trust: bool) -> Outcome:
    """Explain the same images with every network and see where the evidence lies."""
    first = everyone[0]
    if masks is None:
        _refuse_other_pictures(first.data)
    warn_of_colour([each.checkpoint for each in everyone], first.source, first.chosen)
    found = None if masks is None else _find_masks(masks, first)
    left_out = () if found is None else tuple(first.source.name(i) for i in first.chosen if i not in found)
    chosen = first.chosen if found is None else [i for i in first.chosen if i in found]
    regions = Regions(first.source, found)
    members = []
    for each in everyone:
        inputs = replace(each, chosen=chosen)
        member, layer = _shares(inputs, regions, explanation)
        members.append(member)
        chosen = _readable(first.source, chosen)
    first.report_unreadable()
    size = first.checkpoint.info.preprocessing.size
    areas, outlines = _areas(regions, chosen, size)
    names = tuple(first.source.name(i) for i in chosen)
    result = RegionsResult(
        source="prior" if found is None else "masks",
        regions=PRIOR if found is None else MASKS,
        image_names=names,
        patients=_patients(first.source, names),
        areas=areas,
        outlines=outlines,
        members=tuple(members),
        layer=layer,
        method=explanation.method,
        left_out=left_out,
        seed=first.seed,
        provenance=first.provenance(),
    )
    checked = (
        check_some([replace(each, chosen=chosen) for each in everyone], chosen, explanation.options())
        if trust
        else None
    )
    return Outcome(result, _mean_picture(first.source, chosen, size), checked)


def _refuse_other_pictures(data: str) -> None:
    if data in data_names() and data not in X_RAYS:
        raise ModelInputError(
            "masks",
            f"none given, and {data} has no chest X-rays, whose fixed parts are measured without masks; for other "
            "pictures give images as files (folder:PATH) and a folder of masks",
        )


def _find_masks(folder: Path, inputs: Inputs) -> dict[int, Path]:
    """The masks of the chosen images that have one. Raises ModelInputError if none has."""
    if not folder.is_dir():
        raise ModelInputError("masks", f"{folder} is not a folder; it takes a folder of PNG files named as the images")
    if not isinstance(inputs.source, FileImages):
        raise ModelInputError(
            "masks", f"the images of {inputs.data} are not files, so no mask can be named as they are"
        )
    found = {i: path for i in inputs.chosen if (path := find_mask(folder, inputs.source, i)) is not None}
    if not found:
        example = Path(inputs.source.name(inputs.chosen[0])).with_suffix(".png")
        raise ModelInputError(
            "masks", f"{folder} has a mask of no image; that of the first would be {folder / example}"
        )
    return found


def _shares(inputs: Inputs, regions: Regions, explanation: Explanation) -> tuple[NetworkShares, str]:
    """One network's shares of the images that can be read, and the layer that was explained."""
    checkpoint, rows_read = inputs.checkpoint, list[list[int]]()
    labels = class_numbers(inputs.source, checkpoint.info.classes, inputs.data)

    def batches() -> Iterator[Tensor]:
        for batch, rows in inputs.located(list(range(len(inputs.chosen))), checkpoint.name):
            rows_read.append([inputs.chosen[row] for row in rows])
            yield batch

    shares, correct, layer = [], [], ""
    try:
        for part in stream_gradcam(inputs.model, batches(), **explanation.options()):
            indices = rows_read[-1]
            shares.append(region_shares(part.maps, regions.of(indices, part.size)))
            wanted = labels[torch.tensor([int(inputs.source.labels[i]) for i in indices])]
            correct.append(part.predicted == wanted.numpy())
            layer = part.layer
    except AnalysisInputError as error:
        argument = "ckpt" if error.argument == "model" else error.argument
        raise AnalysisInputError(argument, f"{checkpoint.name}: {error}") from error
    name = network_name(checkpoint)
    member = NetworkShares(checkpoint.name, name, np.concatenate(shares), np.concatenate(correct), inputs.provenance())
    return member, layer


def _areas(regions: Regions, chosen: Sequence[int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What each region covers of each picture, and the share of the pictures in which a pixel belongs to it."""
    if regions.masks is None:
        prior = regions.of(chosen, size)
        return region_areas(prior, len(chosen)), prior[0].astype(np.float64)
    areas, outlines = [], 0.0
    for index in chosen:
        own = regions.of([index], size)
        areas.append(region_areas(own, 1))
        outlines = outlines + own[0] / len(chosen)
    return np.concatenate(areas), np.asarray(outlines)


def _readable(source: ImageSource, chosen: Sequence[int]) -> list[int]:
    unreadable = source.unreadable if isinstance(source, FileImages) else {}
    return [index for index in chosen if source.name(index) not in unreadable]


def _patients(source: ImageSource, names: tuple[str, ...]) -> tuple[str, ...]:
    group_of = source.group_of if isinstance(source, FileImages) else None
    return tuple(map(group_of, names)) if group_of else names


def _mean_picture(source: ImageSource, chosen: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The mean of the pictures in grey, behind which the figure shows the regions."""
    sums = [batch.pixels[..., 0].double().sum(0) for batch in source.batches(chosen, 64, size, 1)]
    mean: np.ndarray = (torch.stack(sums).sum(0) / len(chosen)).round().to(torch.uint8).numpy()
    return mean
