"""The file that a command writes a page to."""

import os
from pathlib import Path

from dia_models import ModelInputError
from dia_models.files import write_atomically


def check_page(out: Path, overwrite: bool) -> None:
    """Raise ModelInputError if the page must not or cannot be written; call it before long work."""
    if out.is_dir():
        raise ModelInputError("out", f"{out} is a folder; name the page to write, such as {out / 'report.html'}")
    if out.exists() and not overwrite:
        raise ModelInputError("out", f"{out} exists; choose another file, or replace it with --overwrite")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ModelInputError("out", f"{out} does not end in .html; the page is one HTML file")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ModelInputError("out", f"{out} cannot be written: {folder} is a file; name a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ModelInputError("out", f"{out} cannot be written: {folder} may not be written to; choose another folder")


def write_page(out: Path, html: str) -> None:
    """Write it; what a file's name holds that is no character becomes an escape."""
    write_atomically(out, html.encode("utf-8", "backslashreplace"))
