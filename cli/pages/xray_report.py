"""dia-analyze report --xray: one page on chest X-ray networks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cli.analyses.regions import look
from cli.common.inputs import Inputs
from cli.common.options import DataOptions, Explanation
from cli.common.publish import Out
from cli.pages.page import say_written, shown_if_lost, taken_page
from cli.runs.evaluate import Tested, test_all, two_class
from dia_analysis import GradCAMResult, gradcam
from dia_analysis.results.provenance import versions
from dia_analysis.results.words import quantity
from dia_analysis.xray.diagnosis import TwoClassResult, side_by_side
from dia_models import ModelInputError
from figures.gradcam import ROWS
from figures.pages.html import save_page
from figures.pages.xray_report import Subject, XrayPage, worst_first, xray_report


def write_xray_report(
    ckpts: Sequence[str], everyone: Sequence[Inputs], masks: Path | None, options: DataOptions, out: Out
) -> None:
    """Test the networks on all images, explain those chosen, and write the page; what is lost with it is printed."""
    data = everyone[0].images.data
    with taken_page(out, "xray-report", everyone) as path:
        tested = test_all(ckpts, replace(options, data=data))
        html, text = _page(tested, everyone, masks)
        with shown_if_lost(text):
            save_page(path, html, overwrite=out.overwrite)
    say_written(path, len(tested), len(tested[0].predictions.names), data)


def _page(tested: Sequence[Tested], everyone: Sequence[Inputs], masks: Path | None) -> tuple[str, str]:
    """The page, and its numbers as text."""
    if diverged := next((text for each in tested if (text := each.diverged()) is not None), None):
        raise ModelInputError("ckpt", f"{diverged}. Leave it out")
    results = two_class(tested)
    if not results:
        known = ", ".join(everyone[0].checkpoint.info.classes)
        raise ModelInputError("ckpt", f"{tested[0].checkpoint.name} knows {known}; the page is for two classes")
    looked = look(everyone, masks, Explanation(), trust=True)
    assert looked.trust is not None
    compared, (maps, pictures, captions) = side_by_side(results), _worst(results, everyone)
    source = everyone[0].images.source
    content = XrayPage(
        data=everyone[0].images.data,
        subjects=tuple(map(_subject, tested)),
        comparisons=compared.comparisons,
        spreads=compared.spreads,
        maps=maps,
        pictures=pictures,
        captions=captions,
        regions=looked.result,
        mean_picture=looked.picture,
        trust=looked.trust.paragraphs(),
        warnings=looked.trust.warnings(),
        unreadable=source.unreadable,
        versions=versions(),
    )
    return xray_report(content), "\n\n".join([*(each.summary() for each in tested), looked.found().text])


def _subject(tested: Tested) -> Subject:
    info = tested.checkpoint.info
    assert tested.two_class is not None
    size = f"{info.preprocessing.height}x{info.preprocessing.width}, {quantity(info.model.in_channels, 'channel')}"
    return Subject(
        name=tested.checkpoint.name,
        input=size,
        trained_on=info.data,
        seed=info.seed,
        sha256=tested.checkpoint.sha256,
        result=tested.two_class,
        paper=tested.published(),
    )


def _worst(
    results: Sequence[TwoClassResult], everyone: Sequence[Inputs]
) -> tuple[list[GradCAMResult], np.ndarray, list[str]]:
    """The maps of the images with the worst errors, the images, and what stands under them."""
    readings = [each.readings for each in results]
    first, order = readings[0], worst_first(readings)[:ROWS]
    names = [first.image_names[i] for i in order]
    source = everyone[0].images.source
    index = {source.name(i): i for i in range(len(source))}
    some = [inputs.on([index[name] for name in names]) for inputs in everyone]
    maps = [
        gradcam(
            each.model,
            each.batches(each.name),
            class_names=each.classes,
            image_names=names,
            model_name=each.name,
            provenance=each.provenance(),
        )
        for each in some
    ]
    pictures = next(some[0].images.pictures(max(result.size for result in maps), ROWS))
    labels = [first.class_names[int(first.labels[i])] for i in order]
    return maps, pictures, [f"{Path(name).name}\n({label})" for name, label in zip(names, labels, strict=True)]
