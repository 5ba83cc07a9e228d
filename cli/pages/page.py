"""The file that a command writes a page to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cli.common.console import note, say
from cli.common.inputs import Inputs
from cli.common.naming import default_name
from cli.common.publish import Out
from dia_analysis.errors import AnalysisInputError
from dia_analysis.results.words import quantity
from dia_models import ModelInputError


@contextmanager
def taken_page(out: Out, command: str, everyone: Sequence[Inputs]) -> Iterator[Path]:
    """Take the page's file before the work. Raises ModelInputError or AnalysisInputError if it cannot be written."""
    if out.out is not None and out.out.is_dir():
        raise ModelInputError("out", f"{out.out} is a folder; name the page to write, such as report.html in it")
    if out.out is not None and out.out.suffix.lower() not in (".html", ".htm"):
        raise ModelInputError("out", f"{out.out} does not end in .html; the page is one HTML file")
    name = default_name(command, [each.name for each in everyone], everyone[0].images.data)
    with out.file(name, ".html") as path:
        yield path


@contextmanager
def shown_if_lost(text: str) -> Iterator[None]:
    """Print what came out if the page with it cannot be written inside."""
    try:
        yield
    except AnalysisInputError:
        say(text)
        raise


def say_written(path: Path, networks: int, images: int, data: str) -> None:
    """Say what the page is about, and how large it is."""
    size = path.stat().st_size / 1e6
    say(f"{path}: {quantity(networks, 'network')} on {quantity(images, 'image')} of {data}, {size:.1f} MB")
    note("the page is one file and needs no network; open it in a browser")
