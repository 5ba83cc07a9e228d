"""The file that a command writes a page to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cli.common.console import say
from cli.common.naming import default_name
from cli.common.publish import Out
from dia_analysis.errors import AnalysisInputError
from dia_analysis.results.output import writing
from dia_models import ModelInputError
from dia_models.files import write_atomically


@contextmanager
def taken_page(out: Out, command: str, networks: Sequence[str], data: str) -> Iterator[Path]:
    """Take the page's file before the work. Raises ModelInputError or AnalysisInputError if it cannot be written."""
    if out.out is not None and out.out.is_dir():
        raise ModelInputError("out", f"{out.out} is a folder; name the page to write, such as report.html in it")
    if out.out is not None and out.out.suffix.lower() not in (".html", ".htm"):
        raise ModelInputError("out", f"{out.out} does not end in .html; the page is one HTML file")
    with out.file(default_name(command, networks, data), ".html") as path:
        yield path


@contextmanager
def shown_if_lost(text: str) -> Iterator[None]:
    """Print what came out if the page with it cannot be written inside."""
    try:
        yield
    except AnalysisInputError:
        say(text)
        raise


def write_page(out: Path, html: str) -> None:
    """Write it; what a file's name holds that is no character becomes an escape."""
    with writing(out):
        write_atomically(out, html.encode("utf-8", "backslashreplace"))
