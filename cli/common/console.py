"""Results on stdout, everything else on stderr; no control characters where there is no terminal."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def speaks() -> bool:
    """Whether this process tells the user anything: of several that torchrun started, the first one does."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str = "") -> None:
    """Print a result."""
    if speaks():
        sys.stdout.write(text + "\n")


def show(as_json: bool, document: Any, text: Callable[[], str]) -> None:
    """Print the result: one JSON document (given, or what gives it), or text."""
    if as_json:
        say(json.dumps(document() if callable(document) else document, indent=2, allow_nan=False))
    else:
        say(text())


def note(text: str) -> None:
    """Tell the user something that is not a result."""
    if speaks():
        sys.stderr.write(text + "\n")


def terminal_width() -> int:
    """How many columns a table may take: those of the terminal, of 80 to 120."""
    return min(max(shutil.get_terminal_size().columns, 80), 120)


def progress_bar() -> Progress:
    """A bar on stderr that is not drawn where stderr is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not (console.is_terminal and speaks()),
    )


def tracked(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Pass items through, drawing a bar."""
    with progress_bar() as bar:
        task = bar.add_task(label, total=total, detail="")
        for item in items:
            yield item
            bar.advance(task)
