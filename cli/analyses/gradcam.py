"""dia-analyze gradcam: what checkpoints look at, side by side, and whether their heatmaps can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

import figures
from cli.analyses.trust import IMAGES as TRUST_IMAGES
from cli.analyses.trust import agreements, check_maps, draw
from cli.common.images import Chosen
from cli.common.inputs import Inputs
from cli.common.publish import Found, Out
from dia_analysis import AnalysisInputError, GradCAMResult, TrustChecks, gradcam
from dia_analysis.explain.overlay import overlay, shared_peak
from dia_analysis.results.output import file_name
from dia_analysis.trust.checks import TrustReport
from dia_analysis.trust.heatmaps import HeatmapComparison
from dia_models import ModelInputError
from figures.gradcam import ROWS


@dataclass(frozen=True)
class Explanation:
    """What to explain, and how; as `dia_analysis.explain.gradcam` takes it."""

    target: str | None = None
    layer: str | None = None
    call: int | None = None
    method: str = "gradcam"

    def options(self) -> dict[str, Any]:
        """The options of the functions that make maps."""
        return {"layer": self.layer, "call": self.call, "method": self.method}


def report(
    everyone: Sequence[Inputs], images: Chosen, explanation: Explanation, *, trust: bool, out: Out, as_json: bool
) -> None:
    """Explain the images with every checkpoint, print the table or the JSON document, and write everything."""
    with out.folder("gradcam", [each.checkpoint.name for each in everyone], images.data) as taken:
        found(explain_all(everyone, images, explanation, trust), images).publish(taken, as_json=as_json)


def explain_all(everyone: Sequence[Inputs], images: Chosen, explanation: Explanation, trust: bool) -> HeatmapComparison:
    """The maps of every network for the same images, and whether they can be trusted if that is asked for."""
    explained = [explain(inputs, images, explanation, trust) for inputs in everyone]
    everyone[0].report_unreadable()
    return compare(everyone, explained, images)


def compare(
    everyone: Sequence[Inputs], explained: Sequence[tuple[GradCAMResult, TrustChecks | None]], images: Chosen
) -> HeatmapComparison:
    """What came out for every network, together; with the checks of trust if they were made."""
    results, labels = [result for result, _ in explained], images.labels()
    checks = tuple(check for _, check in explained if check is not None)
    checked = TrustReport(min(TRUST_IMAGES, len(labels)), checks, agreements(everyone, results)) if checks else None
    return HeatmapComparison(tuple(results), labels, checked)


def explain(
    inputs: Inputs, images: Chosen, explanation: Explanation, trust: bool
) -> tuple[GradCAMResult, TrustChecks | None]:
    """One network's maps of the images, and the checks of whether they can be trusted if that is asked for."""
    try:
        result = _explain(inputs, images, explanation)
        checks = check_maps(inputs, images.readable(), result, explanation.options()) if trust else None
        return result, checks
    except AnalysisInputError as error:
        argument = "ckpt" if error.argument == "model" else error.argument
        raise AnalysisInputError(argument, f"{inputs.checkpoint.name}: {error}") from error
    except ModelInputError as error:
        raise images.blamed(error) from error


def _explain(inputs: Inputs, images: Chosen, explanation: Explanation) -> GradCAMResult:
    name = inputs.checkpoint.name
    result = gradcam(
        inputs.model,
        inputs.batches(name),
        target=explanation.target,
        class_names=inputs.checkpoint.info.classes,
        model_name=name,
        provenance=replace(inputs.provenance(), selection=images.selection),
        **explanation.options(),
    )
    return replace(result, image_names=images.paths())


def found(outcome: HeatmapComparison, images: Chosen) -> Found:
    """What to print and to write."""

    def write(folder: Path) -> None:
        size = max(result.size for result in outcome.results)
        first = next(images.pictures(size, ROWS))
        names = zip(images.paths(), outcome.labels, strict=True)
        captions = [f"{Path(path).name}\n({label})" if label else Path(path).name for path, label in names]
        drawn = {} if outcome.trust is None else draw(outcome.trust)
        outcome.write(folder, {"fig9-gradcam": figures.heatmaps(outcome.results, first, captions), **drawn})
        _write_overlays(outcome.results, images, size, folder / "overlays")

    return Found(outcome.about(), outcome.to_dict(), outcome.summary(), write)


def _write_overlays(results: Sequence[GradCAMResult], images: Chosen, size: tuple[int, int], folder: Path) -> None:
    """One PNG per image and network, all on one colour scale (the figure's, if that shows all images)."""
    folder.mkdir()
    peak, number = shared_peak(results), 0
    for pictures in images.pictures(size, 64):
        for picture in pictures:
            stem = f"{number + 1:03d}-{file_name(Path(results[0].image_names[number]).stem)}"
            for result in results:
                drawn = Image.fromarray(overlay(picture, result.layer_maps[number], peak))
                drawn.save(folder / f"{stem}-{file_name(result.name)}.png")
            number += 1
