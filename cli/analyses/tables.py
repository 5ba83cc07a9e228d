"""dia-analyze tables and dia-analyze figures."""

import sys
from collections.abc import Sequence
from pathlib import Path

from cli.common.console import say, terminal_width
from cli.common.publish import Found, Out
from dia_analysis.paper.read_sweeps import read_sweeps
from dia_analysis.paper.sweeps import SweepResult
from dia_analysis.results.provenance import versions
from dia_analysis.results.style import save_figure
from figures import tables
from figures.sweeps import OF_SWEEPS

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
        document = {"schema": "dia.tables/1", "tables": [tables.to_dict(result) for result in results]}
        text = "\n".join(map(_readable, results))
        out.publish(Found(_about(results), document, text, lambda folder: tables.write(results, folder)), taken)


def _readable(result: SweepResult) -> str:
    """For a terminal in columns that fit it; for a file or another program as Markdown."""
    return tables.text(result, terminal_width()) if sys.stdout.isatty() else tables.markdown(result)


def _about(results: Sequence[SweepResult]) -> dict[str, object]:
    return {"sweeps": [{"name": result.name, "scale": result.scale} for result in results], "versions": versions()}


def draw_figures(runs: list[Path], out: Out) -> None:
    """Draw the figures of trained networks for which there are runs; say which command makes the others."""
    with out.folder("figures") as taken:
        results = {result.name: result for result in read_sweeps(runs) if result.runs}
        drawn = {name: result for name, result in results.items() if name in OF_SWEEPS}
        if drawn:
            with taken.filled(_about(list(drawn.values()))) as folder:
                for name, result in drawn.items():
                    save_figure(OF_SWEEPS[name](result), folder / name)
    for name in OF_SWEEPS:
        if name in drawn:
            say(f"{name}: written to {taken.path / name}.png and .pdf")
        else:
            say(f"{name}: there are no runs; dia-train sweep {name} --scale laptop makes them")
    for name, command in OF_NETWORKS.items():
        say(f"{name}: drawn from networks, not from runs: dia-analyze {command}")
