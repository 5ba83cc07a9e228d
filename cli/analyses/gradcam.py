"""dia-analyze gradcam: what checkpoints look at, side by side, and whether their heatmaps can be trusted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cli.common.inputs import Inputs
from cli.common.options import Explanation
from cli.common.publish import Found, Out
from dia_analysis import AnalysisInputError, GradCAMResult, TrustChecks
from dia_analysis.networks import compare_heatmaps, explain
from dia_analysis.trust.heatmaps import HeatmapComparison, check_size
from dia_models import ModelInputError
from figures import heatmaps, paper_figures
from figures.gradcam import ROWS


def report(everyone: Sequence[Inputs], explanation: Explanation, *, trust: bool, out: Out) -> None:
    """Explain the images with every checkpoint, print the table or the JSON document, and write everything."""
    images = everyone[0].images
    check_size([each.preprocessing.size for each in everyone], len(images))
    with out.folder("gradcam", [each.name for each in everyone], images.data) as taken:
        explained = [explained_by(each, trust=trust, **vars(explanation)) for each in everyone]
        images.report_unreadable()
        out.publish(found(compare_heatmaps(everyone, explained), everyone), taken, images.source)


def explained_by(inputs: Inputs, **how: Any) -> tuple[GradCAMResult, TrustChecks | None]:
    """One network's maps of the images; errors name it, and how the images were given."""
    try:
        return explain(inputs, **how)
    except AnalysisInputError as error:
        raise inputs.blamed(error) from error
    except ModelInputError as error:
        raise inputs.images.blamed(error) from error


def found(outcome: HeatmapComparison, everyone: Sequence[Inputs]) -> Found:
    """What to print and to write."""

    def overlays(folder: Path) -> None:
        outcome.write_overlays(folder / "overlays", [each.pictures(outcome.size, 64) for each in everyone])

    return Found.of(outcome, lambda: draw(outcome, everyone)).beside(overlays)


def draw(outcome: HeatmapComparison, everyone: Sequence[Inputs]) -> Mapping[str, Figure]:
    """Fig. 9, and the checks of trust."""
    first = [next(each.pictures(outcome.size, ROWS)) for each in everyone]
    checks = paper_figures(outcome.trust) if outcome.trust else {}
    return {"fig9-gradcam": heatmaps(outcome.results, first, outcome.captions()), **checks}
