"""dia-analyze report: everything that the analyses find of some networks, on one page."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cli.analyses.ablate import fit_batches
from cli.analyses.cost import subjects_of
from cli.common.inputs import Inputs
from cli.common.networks import Candidate, candidates
from cli.common.options import CostOptions, DataOptions, NetworkOptions
from cli.common.publish import Out
from cli.pages.page import publish_page
from figures.pages.report import measure_report
from figures.pages.report_page import ReportPage


def write_report(given: NetworkOptions, everyone: Sequence[Inputs], options: DataOptions, out: Out) -> None:
    """Analyze the networks and write the page; what came out is printed if it cannot be written."""

    def make() -> tuple[str, str, int]:
        page = analyze_networks(candidates(given), everyone, options)
        everyone[0].images.report_unreadable()
        return page.html(), page.summary(), len(everyone[0].images)

    publish_page(out, "report", everyone, make)


def analyze_networks(
    compared: Sequence[Candidate], everyone: Sequence[Inputs], options: DataOptions, **more: Any
) -> ReportPage:
    """Run every analysis that the networks and the images allow; further arguments are those of `measure_report`."""
    timing = CostOptions(device=options.device, seed=options.seed, batch_size=options.batch_size)
    again = Again(compared, everyone[0].images.data, options)
    more |= {"unreadable": everyone[0].images.source.unreadable, "fit": partial(fit_batches, options=options)}
    return measure_report(everyone, subjects_of(compared, timing), again=again, **more)


@dataclass(frozen=True)
class Again:
    """Writes the command lines that do an analysis again."""

    compared: Sequence[Candidate]
    data: str
    options: DataOptions

    def __call__(self, command: str, places: Sequence[int], images: int | None, *more: str) -> str:
        """The command for the networks in these places, on so many images of the data if it takes any."""
        words = ["dia-analyze", command, *(word for i in places for word in self.compared[i].words), *more]
        if images is not None:
            words += ["--data", self.data, "--images", str(images)]
            words += ["--data-dir", str(self.options.data_dir)] if self.options.data_dir else []
        words += ["--device", self.options.device] if self.options.device != "auto" else []
        return shlex.join([*words, "--seed", str(self.options.seed), "-b", str(self.options.batch_size)])
