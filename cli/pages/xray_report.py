"""dia-analyze report --xray: one page on chest X-ray networks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cli.analyses import regions
from cli.common.inputs import Inputs, open_networks
from cli.common.networks import candidates
from cli.common.options import DataOptions, NetworkOptions
from cli.common.publish import Out
from cli.pages.page import say_written, shown_if_lost, taken_page
from cli.runs.evaluate import Tested, test_all, two_class
from dia_analysis import HeatmapComparison
from dia_analysis.networks import compare_heatmaps, explain
from dia_analysis.results.provenance import versions
from dia_analysis.xray.diagnosis import TwoClassResult, side_by_side
from dia_models import ModelInputError
from dia_models.networks.facts import input_text
from figures.gradcam import ROWS
from figures.pages.html import save_page
from figures.pages.xray_report import Subject, XrayPage, worst_first, xray_report


def write_xray_report(given: NetworkOptions, masks: Path | None, options: DataOptions, out: Out) -> None:
    """Test the networks on all images, explain those chosen, and write the page; what is lost with it is printed."""
    everyone = open_networks(given, options)
    data = everyone[0].images.data
    with taken_page(out, "xray-report", everyone) as path:
        tested = test_all(candidates(given), replace(options, data=data))
        html, text = _page(tested, everyone, masks)
        with shown_if_lost(text):
            save_page(path, html, overwrite=out.overwrite)
    say_written(path, len(tested), len(tested[0].found.predictions.names), data)


def _page(tested: Sequence[Tested], everyone: Sequence[Inputs], masks: Path | None) -> tuple[str, str]:
    """The page, and its numbers as text."""
    if diverged := next((text for each in tested if (text := each.found.diverged()) is not None), None):
        raise ModelInputError("ckpt", f"{diverged}. Leave it out")
    results = two_class(tested)
    if not results:
        known = ", ".join(everyone[0].network.outputs.words)
        raise ModelInputError("ckpt", f"{everyone[0].name} knows {known}; the page is for two classes")
    result, picture, trust = regions.look(everyone, masks, None, trust=True)
    assert trust is not None
    heatmaps, pictures = _worst(results, everyone)
    content = XrayPage(
        data=everyone[0].images.data,
        subjects=tuple(_subject(each, found) for each, found in zip(everyone, results, strict=True)),
        compared=side_by_side(results),
        heatmaps=heatmaps,
        pictures=pictures,
        regions=result,
        mean_picture=picture,
        trust=trust,
        unreadable=everyone[0].images.source.unreadable,
        versions=versions(),
    )
    looked = regions.found(result, picture, trust)
    return xray_report(content), "\n\n".join([*(each.summary() for each in tested), looked.text])


def _subject(inputs: Inputs, result: TwoClassResult) -> Subject:
    network, info = inputs.network, inputs.network.checkpoint.info if inputs.network.checkpoint else None
    data, seed = (info.data, str(info.seed)) if info else (f"not known ({network.weights})", "not known")
    return Subject(inputs.name, input_text(network), data, seed, network.sha256, result)


def _worst(results: Sequence[TwoClassResult], everyone: Sequence[Inputs]) -> tuple[HeatmapComparison, np.ndarray]:
    """The maps of the images with the worst errors, and the images."""
    readings = [each.readings for each in results]
    images = everyone[0].images.of(readings[0].image_names[i] for i in worst_first(readings)[:ROWS])
    some = [inputs.of(images) for inputs in everyone]
    found = compare_heatmaps(some, [explain(each) for each in some])
    return found, next(images.pictures(found.size, ROWS))
