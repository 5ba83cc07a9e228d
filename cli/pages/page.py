"""The file that a command writes a page to."""

from collections.abc import Callable, Sequence

from cli.common.console import note, say
from cli.common.inputs import Inputs
from cli.common.publish import Out, default_name
from dia_analysis.errors import AnalysisInputError
from dia_analysis.results.words import quantity
from dia_models import ModelInputError
from figures.pages.html import save_page


def publish_page(out: Out, command: str, everyone: Sequence[Inputs], make: Callable[[], tuple[str, str, int]]) -> None:
    """Take the page's file, make the page (as HTML, as text, and of how many images it is) and write it.

    If it cannot be written, the text is printed. Raises ModelInputError or AnalysisInputError then, or before the work.
    """
    data = everyone[0].images.data
    if out.out is not None and out.out.is_dir():
        raise ModelInputError("out", f"{out.out} is a folder; name the page to write, such as report.html in it")
    if out.out is not None and out.out.suffix.lower() not in (".html", ".htm"):
        raise ModelInputError("out", f"{out.out} does not end in .html; the page is one HTML file")
    with out.file(default_name(command, [each.name for each in everyone], data), ".html") as path:
        html, text, images = make()
        try:
            save_page(path, html, overwrite=out.overwrite)
        except AnalysisInputError:
            say(text)
            raise
    about, size = f"{quantity(len(everyone), 'network')} on {quantity(images, 'image')}", path.stat().st_size / 1e6
    say(f"{path}: {about} of {data}, {size:.1f} MB")
    note("the page is one file and needs no network; open it in a browser")
