"""Where a command's results go: the folder is taken before the work, the results are printed, then written."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.common import options as o
from cli.common.console import note, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dia_analysis import Result
    from dia_analysis.results.output import Taken
    from dia_models import Checkpoint, OpenedNetwork
    from dia_models.data import ImageSource

FOLDER = Path("dia-out")


@dataclass(frozen=True)
class Found:
    """What a command found: what the manifest says of it, the JSON document, the text, and what writes its files."""

    about: Mapping[str, Any]
    document: Mapping[str, Any]
    text: str
    write: Callable[[Path], None]

    @classmethod
    def of(
        cls,
        result: "Result",
        figures: "Callable[[], Mapping[str, Figure]] | None" = None,
        image_names: "Callable[[], Iterable[str]]" = tuple,
    ) -> "Found":
        """What an analysis found; the figures, by default `paper_figures`, are drawn when it is written."""

        def write(folder: Path) -> None:
            from figures import paper_figures

            result.write(folder, figures() if figures else paper_figures(result), image_names())

        return cls(result.about(), result.to_dict(), result.summary(), write)

    def beside(
        self, write: Callable[[Path], None] = lambda _: None, document: Mapping[str, Any] | None = None, text: str = ""
    ) -> "Found":
        """The same and more: what also writes files, what else the document holds, and what follows the text."""

        def both(folder: Path) -> None:
            self.write(folder)
            write(folder)

        return Found(self.about, {**self.document, **(document or {})}, self.text + text, both)


@dataclass(frozen=True)
class Out:
    """What --out, --overwrite and --json say; `out` is a folder or file, or None, which means a new one in dia-out/.

    The default is named for the command, the networks and the data, then `-2`, `-3`, ... where that is taken, finished
    or being written; with `overwrite` it is the first of these.
    """

    out: o.OutFolder = None
    overwrite: o.Overwrite = False
    as_json: o.Json = False

    @contextmanager
    def folder(self, command: str, networks: Sequence[str] = (), data: str | None = None) -> "Iterator[Taken]":
        """Take the folder; of several processes, the first does. Raises AnalysisInputError if none can be had."""
        from dia_analysis.distributed import from_first, refuse_separate_processes
        from dia_analysis.results.output import first_free, take

        refuse_separate_processes()
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

    def publish(self, found: Found, taken: "Taken | None", source: "ImageSource | None" = None) -> None:
        """Print what was found, then write it; of several processes, the first does.

        What was done to DICOM files of the `source` is added. What cannot be written is printed all the same, and what
        cannot be printed is written.
        """
        from dia_analysis.distributed import rank

        if rank():
            return
        if treated := dict(getattr(source, "treated", {})):
            found = found.beside(partial(_write_treated, treated), {"dicom": treated})
        try:
            show(self.as_json, found.document, lambda: found.text)
        finally:
            if taken is not None:
                with taken.filled(found.about) as folder:
                    found.write(folder)
                note(f"written to {taken.path}/")

    @contextmanager
    def if_given(self) -> "Iterator[Taken | None]":
        """Take the folder, if one was given."""
        if self.out is None:
            yield None
            return
        with self.folder("") as taken:
            yield taken

    @contextmanager
    def file(self, name: str, suffix: str) -> Iterator[Path]:
        """Take the file. Raises AnalysisInputError if it cannot be had."""
        from dia_analysis.distributed import refuse_separate_processes
        from dia_analysis.results.output import hold_first, refuse_taken_file

        refuse_separate_processes()
        with hold_first(self.paths(name, suffix), partial(refuse_taken_file, overwrite=self.overwrite)) as path:
            yield path

    def paths(self, name: str, suffix: str = "", *, continued: bool = False) -> Iterator[Path]:
        """Where results may go, the best first; `continued` if what is there already is to be used."""
        first = self.out or FOLDER / f"{name}{suffix}"
        yield first
        if self.out is None and not self.overwrite and not continued:
            yield from (first.with_name(f"{name}-{number}{suffix}") for number in count(2))


def default_name(command: str, networks: Sequence[str], data: str | None) -> str:
    """The name of the folder or file that a command writes by default: command, networks, data."""
    from dia_analysis.results.output import file_name

    data_name = None if data is None else Path(data.partition(":")[2] or data).name
    parts = [command, "-".join(map(file_name, networks)), data_name or ""]
    return "-".join(file_name(part) for part in parts if part)


def about_networks(networks: "Sequence[Checkpoint | OpenedNetwork]", data: str, seed: int = 0) -> dict[str, Any]:
    """What the manifest says of results of networks on a data set."""
    from dia_analysis import Provenance

    models = [{"name": each.name, "checkpoint_sha256": each.sha256} for each in networks]
    return {**Provenance(data=data, seed=seed).to_dict(), "models": models}


def _write_treated(treated: Mapping[str, str], folder: Path) -> None:
    from dia_analysis.results.output import write_csv

    write_csv(folder / "dicom.csv", [("image", "what was done to its values"), *sorted(treated.items())])


def report_skipped(unreadable: Mapping[str, str], images: int) -> None:
    """Name the files that cannot be read, of so many images."""
    if unreadable:
        note(f"warning: {len(unreadable)} of {images} images cannot be read and were skipped:")
        for name, reason in sorted(unreadable.items()):
            note(f"  {name}: {reason}")
