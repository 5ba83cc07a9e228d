"""dia-analyze gradcam: what checkpoints look at, side by side, and whether their heatmaps can be trusted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

import figures
from cli.analyses.trust import IMAGES as TRUST_IMAGES
from cli.analyses.trust import check_images, draw
from cli.common.images import SelectedImages
from cli.common.inputs import Inputs
from cli.common.options import Explanation
from cli.common.publish import Found, Out
from dia_analysis import AnalysisInputError, GradCAMResult, TrustChecks, gradcam
from dia_analysis.explain.overlay import overlay, shared_peak
from dia_analysis.results.output import file_name
from dia_analysis.trust.checks import TrustReport, agreements
from dia_analysis.trust.heatmaps import HeatmapComparison
from dia_models import ModelInputError
from figures.gradcam import ROWS

LARGEST_MAPS = 2 * 2**30


def report(everyone: Sequence[Inputs], explanation: Explanation, *, trust: bool, out: Out) -> None:
    """Explain the images with every checkpoint, print the table or the JSON document, and write everything."""
    data, names = everyone[0].images.data, [each.name for each in everyone]
    check_size(everyone)
    with out.folder("gradcam", names, data) as taken:
        out.publish(found(explain_all(everyone, explanation, trust), everyone[0].images), taken)


def check_size(everyone: Sequence[Inputs]) -> None:
    """Raise ModelInputError where the maps of all images would take more than 2 GiB."""
    sizes = [each.checkpoint.info.preprocessing.size for each in everyone]
    images = len(everyone[0].images.chosen)
    need = 4 * max(height * width for height, width in sizes) * images * len(everyone)
    if need > LARGEST_MAPS:
        raise ModelInputError(
            "images",
            f"the maps of {images} images would take {need / 2**30:.1f} GiB; at most 2 are written, so "
            "give fewer, or use dia_analysis.stream_gradcam",
        )


def explain_all(everyone: Sequence[Inputs], explanation: Explanation, trust: bool) -> HeatmapComparison:
    """The maps of every network for the same images, and whether they can be trusted if that is asked for."""
    explained = [explain(inputs, explanation, trust) for inputs in everyone]
    everyone[0].images.report_unreadable()
    return compare(everyone, explained)


def compare(
    everyone: Sequence[Inputs], explained: Sequence[tuple[GradCAMResult, TrustChecks | None]]
) -> HeatmapComparison:
    """What came out for every network, together; with the checks of trust if they were made."""
    results, labels = [result for result, _ in explained], everyone[0].images.labels()
    checks = tuple(check for _, check in explained if check is not None)
    runs = agreements(results, [each.architecture for each in everyone])
    checked = TrustReport(min(TRUST_IMAGES, len(labels)), checks, runs) if checks else None
    return HeatmapComparison(tuple(results), labels, checked)


def explain(inputs: Inputs, explanation: Explanation, trust: bool) -> tuple[GradCAMResult, TrustChecks | None]:
    """One network's maps of the images, and the checks of whether they can be trusted if that is asked for."""
    try:
        result = _explain(inputs, explanation)
        checks = check_images(inputs, inputs.images.readable(), result, explanation.options()) if trust else None
        return result, checks
    except AnalysisInputError as error:
        argument = "ckpt" if error.argument == "model" else error.argument
        raise AnalysisInputError(argument, f"{inputs.checkpoint.name}: {error}") from error
    except ModelInputError as error:
        raise inputs.images.blamed(error) from error


def _explain(inputs: Inputs, explanation: Explanation) -> GradCAMResult:
    name = inputs.checkpoint.name
    result = gradcam(
        inputs.model,
        inputs.batches(name),
        target=explanation.target,
        class_names=inputs.classes,
        model_name=name,
        provenance=inputs.provenance(),
        **explanation.options(),
    )
    return replace(result, image_names=inputs.images.paths())


def found(outcome: HeatmapComparison, images: SelectedImages) -> Found:
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


def _write_overlays(
    results: Sequence[GradCAMResult], images: SelectedImages, size: tuple[int, int], folder: Path
) -> None:
    """One PNG per image and network, all on one color scale (the figure's, if that shows all images)."""
    folder.mkdir()
    peak, number = shared_peak(results), 0
    for pictures in images.pictures(size, 64):
        for picture in pictures:
            stem = f"{number + 1:03d}-{file_name(Path(results[0].image_names[number]).stem)}"
            for result in results:
                drawn = Image.fromarray(overlay(picture, result.layer_maps[number], peak))
                drawn.save(folder / f"{stem}-{file_name(result.name)}.png")
            number += 1
