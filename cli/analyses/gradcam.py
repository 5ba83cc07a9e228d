"""dia-analyze gradcam: what checkpoints look at, side by side, and whether their heatmaps can be trusted."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

import figures
from cli.common.images import SelectedImages
from cli.common.inputs import Inputs
from cli.common.options import Explanation
from cli.common.publish import Found, Out
from dia_analysis import AnalysisInputError, GradCAMResult, TrustChecks, TrustReport
from dia_analysis.explain.overlay import overlay, shared_peak
from dia_analysis.networks import compare_heatmaps, explain
from dia_analysis.results.output import file_name
from dia_analysis.trust.heatmaps import HeatmapComparison
from dia_models import ModelInputError
from figures.gradcam import ROWS

LARGEST_MAPS = 2 * 2**30


def report(everyone: Sequence[Inputs], explanation: Explanation, *, trust: bool, out: Out) -> None:
    """Explain the images with every checkpoint, print the table or the JSON document, and write everything."""
    images = everyone[0].images
    check_size(everyone)
    with out.folder("gradcam", [each.name for each in everyone], images.data) as taken:
        explained = [explained_by(each, trust=trust, **vars(explanation)) for each in everyone]
        images.report_unreadable()
        out.publish(found(compare_heatmaps(everyone, explained), images), taken)


def check_size(everyone: Sequence[Inputs]) -> None:
    """Raise ModelInputError where the maps of all images would take more than 2 GiB."""
    images = len(everyone[0].images)
    need = 4 * max(each.preprocessing.height * each.preprocessing.width for each in everyone) * images * len(everyone)
    if need > LARGEST_MAPS:
        raise ModelInputError(
            "images",
            f"the maps of {images} images would take {need / 2**30:.1f} GiB; at most 2 are written, so "
            "give fewer, or use dia_analysis.stream_gradcam",
        )


def explained_by(inputs: Inputs, **how: Any) -> tuple[GradCAMResult, TrustChecks | None]:
    """One network's maps of the images; errors name it, and how the images were given."""
    try:
        return explain(inputs, **how)
    except AnalysisInputError as error:
        raise inputs.blamed(error) from error
    except ModelInputError as error:
        raise inputs.images.blamed(error) from error


def found(outcome: HeatmapComparison, images: SelectedImages) -> Found:
    """What to print and to write."""
    overlays = partial(_write_overlays, outcome.results, images)
    return Found.of(outcome, lambda: draw(outcome, images)).beside(overlays)


def draw(outcome: HeatmapComparison, images: SelectedImages) -> Mapping[str, Figure]:
    """Fig. 9, and the checks of trust."""
    first = next(images.pictures(outcome.size, ROWS))
    checks = draw_trust(outcome.trust) if outcome.trust else {}
    return {"fig9-gradcam": figures.heatmaps(outcome.results, first, outcome.captions()), **checks}


def draw_trust(trust: TrustReport) -> dict[str, Figure]:
    """The checks of every network."""
    return {
        f"trust-{file_name(check.name)}": figures.trust_checks(check.randomization, check.road)
        for check in trust.checks
    }


def _write_overlays(results: Sequence[GradCAMResult], images: SelectedImages, out: Path) -> None:
    """One PNG per image and network, all on one color scale (the figure's, if that shows all images)."""
    folder = out / "overlays"
    folder.mkdir()
    peak, size = shared_peak(results), max(result.size for result in results)
    pictures = (picture for part in images.pictures(size, 64) for picture in part)
    for number, picture in enumerate(pictures):
        stem = f"{number + 1:03d}-{file_name(Path(results[0].image_names[number]).stem)}"
        for result in results:
            drawn = Image.fromarray(overlay(picture, result.layer_maps[number], peak))
            drawn.save(folder / f"{stem}-{file_name(result.name)}.png")
