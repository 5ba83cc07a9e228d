"""dia-analyze tables and dia-analyze figures."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cli.common.console import say, terminal_width
from cli.common.publish import Found, Out
from dia_analysis.errors import AnalysisInputError
from dia_analysis.paper.sweeps import SweepResult
from dia_analysis.results.provenance import versions
from dia_analysis.results.style import save_figure
from figures import sweeps, tables

SUMMARY = "sweep.json"
ACCEPTED = f"give a sweep's folder, or its {SUMMARY}"
LARGEST_BYTES = 64 * 2**20
DRAWN: dict[str, Callable[[SweepResult], Figure]] = {
    "figure08": sweeps.by_batch_size,
    "figure10": sweeps.by_blocks,
    "figure14": sweeps.along_training,
    "figure15": sweeps.along_training,
}

OF_NETWORKS = {
    "figure2": "correlation --ckpt NAME",
    "figure9": "gradcam --ckpt A --ckpt B IMAGES",
    "figure11 and figure12": "gini --ckpt A --ckpt B",
    "figure13": "gradients --model A --model B --set skip=false",
}


def print_tables(runs: list[Path], out: Out) -> None:
    """Print the tables of all sweeps, and write each as Markdown, CSV and LaTeX if there is a folder for them."""
    with out.if_given() as taken:
        results = read_sweeps(runs)
        document = {"schema": "dia.tables/1", "tables": [_document(result) for result in results]}
        text = "\n".join(map(_readable, results))
        out.publish(Found(_about(results), document, text, lambda folder: _write(results, folder)), taken)


def _readable(result: SweepResult) -> str:
    """For a terminal in columns that fit it; for a file or another program as Markdown."""
    return tables.text(result, terminal_width()) if sys.stdout.isatty() else tables.markdown(result)


def _about(results: Sequence[SweepResult]) -> dict[str, object]:
    return {"sweeps": [{"name": result.name, "scale": result.scale} for result in results], "versions": versions()}


def _write(results: Sequence[SweepResult], folder: Path) -> None:
    for result in results:
        for suffix, text in (("md", tables.markdown), ("csv", tables.csv_text), ("tex", tables.latex)):
            path = folder / f"{result.name}-{result.scale}.{suffix}"
            path.write_text(text(result), encoding="utf-8", newline="")


def draw_figures(runs: list[Path], out: Out) -> None:
    """Draw the figures of trained networks for which there are runs; say which command makes the others."""
    with out.folder("figures") as taken:
        results = {result.name: result for result in read_sweeps(runs) if result.runs}
        drawn = {name: draw(results[name]) for name, draw in DRAWN.items() if name in results}
        if drawn:
            with taken.filled(_about([results[name] for name in drawn])) as folder:
                for name, figure in drawn.items():
                    save_figure(figure, folder / name)
    for name in DRAWN:
        if name in drawn:
            say(f"{name}: written to {taken.path / name}.png and .pdf")
        else:
            say(f"{name}: there are no runs; dia-train sweep {name} --scale laptop makes them")
    for name, command in OF_NETWORKS.items():
        say(f"{name}: drawn from networks, not from runs: dia-analyze {command}")


def read_sweeps(runs: list[Path]) -> list[SweepResult]:
    """The results of the sweeps in these folders, by name. Raises AnalysisInputError if there is none."""
    found = sorted({path for folder in runs for path in _summaries(folder)})
    if not found:
        raise AnalysisInputError(
            "runs", f"{', '.join(map(str, runs))}: no {SUMMARY} is there; dia-train sweep table04 --out DIR makes one"
        )
    return sorted(map(_read, found), key=lambda result: result.name)


def _summaries(folder: Path) -> list[Path]:
    """A result itself, or those in a folder: `sweep.json` of a sweep, or any name if someone has collected them."""
    if folder.is_file():
        return [folder]
    return [path for path in folder.rglob("*.json") if path.name == SUMMARY or path.parent == folder]


def _read(path: Path) -> SweepResult:
    if path.stat().st_size > LARGEST_BYTES:
        raise AnalysisInputError("runs", f"{path} is larger than 64 MiB, which no sweep's result is")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AnalysisInputError("runs", f"{path} is not JSON; {ACCEPTED}") from error
    if not isinstance(document, dict):
        raise AnalysisInputError("runs", f"{path} is not the result of a sweep; {ACCEPTED}")
    return SweepResult.from_dict(document)


def _document(result: SweepResult) -> dict[str, object]:
    head, *body = tables.rows(result)
    return {"sweep": result.name, "scale": result.scale, "rows": [dict(zip(head, row, strict=True)) for row in body]}
