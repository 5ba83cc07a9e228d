"""dia-analyze report --xray: one page on chest X-ray networks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cli.analyses import regions
from cli.common.inputs import Inputs
from cli.common.networks import candidates
from cli.common.options import DataOptions, NetworkOptions
from cli.common.publish import Out
from cli.pages.page import publish_page
from cli.runs.evaluate import open_images, test_all, two_class
from dia_models import ModelInputError
from dia_models.classification.evaluated import EvaluatedClassifier
from dia_models.data.labels import has_rows
from figures.pages.xray_report import measure_page, xray_report


def write_xray_report(
    given: NetworkOptions, everyone: Sequence[Inputs], masks: Path | None, options: DataOptions, out: Out
) -> None:
    """Test the networks on all images, explain those chosen, and write the page; what is lost with it is printed."""

    def make() -> tuple[str, str, int]:
        if has_rows(everyone[0].images.source):
            raise ModelInputError(
                "data",
                f"{everyone[0].images.data} has many findings; the page is for two classes (dia-train eval tests many)",
            )
        again = replace(options, data=everyone[0].images.data)
        tested = test_all(open_images(candidates(given), again), again)
        return *_page(tested, everyone, masks), len(tested[0].predictions.names)

    publish_page(out, "xray-report", everyone, make)


def _page(tested: Sequence[EvaluatedClassifier], everyone: Sequence[Inputs], masks: Path | None) -> tuple[str, str]:
    """The page, and its numbers as text."""
    if diverged := next((text for each in tested if (text := each.diverged()) is not None), None):
        raise ModelInputError("ckpt", f"{diverged}. Leave it out")
    results = two_class(tested)
    if not results:
        known = ", ".join(everyone[0].network.outputs.words)
        raise ModelInputError("ckpt", f"{everyone[0].name} knows {known}; the page is for two classes")
    result, picture, trust = regions.look(everyone, masks, regions.Explained(), trust=True)
    assert trust is not None
    content = measure_page(everyone, results, result, picture, trust, everyone[0].images.source.unreadable)
    looked = regions.found(result, picture, trust)
    return xray_report(content), "\n\n".join([*(each.summary() for each in tested), looked.text])
