"""dia-analyze report: everything that the analyses find of some checkpoints, on one page."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli.analyses.cost import subjects_of
from cli.common.inputs import Inputs
from cli.common.networks import Candidate
from cli.common.options import CostOptions, DataOptions
from cli.common.publish import Out
from cli.pages.page import say_written, shown_if_lost, taken_page
from figures.pages.report import measure_report
from figures.pages.report_page import ReportPage


def write_report(ckpts: Sequence[str], everyone: Sequence[Inputs], options: DataOptions, out: Out) -> None:
    """Analyse the networks and write the page; what came out is printed if it cannot be written."""
    images = everyone[0].images
    with taken_page(out, "report", everyone) as path:
        page = analyze_networks(ckpts, everyone, options)
        images.report_unreadable()
        with shown_if_lost(page.summary()):
            page.save(path, overwrite=out.overwrite)
    say_written(path, len(everyone), len(images), images.data)


def analyze_networks(ckpts: Sequence[str], everyone: Sequence[Inputs], options: DataOptions, **more: Any) -> ReportPage:
    """Run every analysis that the networks and the images allow; further arguments are those of `measure_report`."""
    timed = [Candidate(each.name, ckpt) for each, ckpt in zip(everyone, ckpts, strict=True)]
    subjects = subjects_of(timed, CostOptions(device=options.device, seed=options.seed, batch_size=options.batch_size))
    again = Again(tuple(ckpts), everyone[0].images.data, options)
    return measure_report(everyone, subjects, again=again, unreadable=everyone[0].images.source.unreadable, **more)


@dataclass(frozen=True)
class Again:
    """Writes the command lines that do an analysis again."""

    ckpts: tuple[str, ...]
    data: str
    options: DataOptions

    def __call__(self, command: str, places: Sequence[int], images: int | None, *more: str) -> str:
        """The command for the checkpoints in these places, on so many images of the data if it takes any."""
        words = ["dia-analyze", command, *(word for i in places for word in ("--ckpt", self.ckpts[i])), *more]
        if images is not None:
            words += ["--data", self.data, "--images", str(images)]
            words += ["--data-dir", str(self.options.data_dir)] if self.options.data_dir else []
        words += ["--device", self.options.device] if self.options.device != "auto" else []
        return shlex.join([*words, "--seed", str(self.options.seed), "-b", str(self.options.batch_size)])
