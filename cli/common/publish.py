"""Where a command's results go: the folder is taken before the work, the results are printed, then written."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from cli.common.console import note, say, say_json
from cli.common.naming import default_name
from dia_analysis.distributed import from_first, rank, world_size
from dia_analysis.errors import AnalysisInputError
from dia_analysis.results.output import Taken, TakenError, hold, take

FOLDER = Path("dia-out")
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """What a command found: what the manifest says of it, the JSON document, the text, and what writes its files."""

    about: Mapping[str, Any]
    document: Mapping[str, Any]
    text: str
    write: Callable[[Path], None]

    def publish(self, taken: Taken | None, *, as_json: bool) -> None:
        """Print it, then write it; of several processes, the first does.

        What cannot be written is printed all the same, and what cannot be printed is written.
        """
        if rank():
            return
        try:
            if as_json:
                say_json(self.document)
            else:
                say(self.text)
        finally:
            if taken is not None:
                with taken.filled(self.about) as folder:
                    self.write(folder)
                note(f"written to {taken.path}/")


@dataclass(frozen=True)
class Out:
    """What --out and --overwrite say: a folder or file, or none, which means a new one in dia-out/.

    The default is named for the command, the networks and the data, then `-2`, `-3`, ... where that is taken, finished
    or being written; with `overwrite` it is the first of these.
    """

    given: Path | None
    overwrite: bool = False

    @contextmanager
    def folder(self, command: str, networks: Sequence[str] = (), data: str | None = None) -> Iterator[Taken]:
        """Take the folder; of several processes, the first does. Raises AnalysisInputError if none can be had."""
        check_one_process()
        paths = self.paths(default_name(command, networks, data))
        with ExitStack() as held:
            taken = from_first(
                lambda: first_free(paths, lambda path: held.enter_context(take(path, overwrite=self.overwrite)))
            )
            try:
                yield taken
            except KeyboardInterrupt as interrupt:
                kept = f"nothing was written to {taken.path}" if taken.draft.exists() else f"{taken.path} is complete"
                raise KeyboardInterrupt(kept) from interrupt

    @contextmanager
    def if_given(self) -> Iterator[Taken | None]:
        """Take the folder, if one was given."""
        if self.given is None:
            yield None
            return
        with self.folder("") as taken:
            yield taken

    @contextmanager
    def file(self, name: str, suffix: str) -> Iterator[Path]:
        """Take the file. Raises AnalysisInputError if it cannot be had."""
        check_one_process()
        with ExitStack() as held:

            def enter(path: Path) -> Path:
                held.enter_context(hold(path))
                self._check_file(path)
                return path

            yield first_free(self.paths(name, suffix), enter)

    def _check_file(self, path: Path) -> None:
        if path.is_dir() or (path.exists() and not self.overwrite):
            raise TakenError("out", f"{path} exists; choose another file, or overwrite it")

    def paths(self, name: str, suffix: str = "", *, continued: bool = False) -> Iterator[Path]:
        """Where results may go, the best first; `continued` if what is there already is to be used."""
        first = self.given or FOLDER / f"{name}{suffix}"
        yield first
        if self.given is None and not self.overwrite and not continued:
            yield from (first.with_name(f"{name}-{number}{suffix}") for number in count(2))


def check_one_process() -> None:
    """Refuse several processes that do not know of each other: each would compute and write everything."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and world_size() == 1:
        raise AnalysisInputError(
            "processes",
            "this command runs in one process; start it without torchrun (capture, correlation and fit run in several)",
        )


def first_free(paths: Iterable[Path], enter: Callable[[Path], T]) -> T:
    """What `enter` gives for the first path that is not taken. Raises its TakenError if all are."""
    problem = None
    for path in paths:
        try:
            return enter(path)
        except TakenError as error:
            problem = error
    assert problem is not None
    raise problem
