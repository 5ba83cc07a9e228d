"""The paper's tables with numbers of one's own beside: as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from math import isnan
from typing import get_args

from dia_analysis.claims import Claim, Verdict, claims
from dia_analysis.sweep_result import SweepResult, shown

HEAD = ("data", "backbone", "variant", "parameters", "runs", "paper", "ours", "paper's difference", "our difference",
        "against", "t-test p", "Welch p", "Holm p", "Hedges g", "verdict")  # fmt: skip
LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
         "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"}  # fmt: skip


def rows(result: SweepResult) -> list[tuple[str, ...]]:
    """The table as text, its first row the names of the columns."""
    return [HEAD, *map(_row, claims(result))]


def markdown(result: SweepResult) -> str:
    """A heading, the table, and how to read it."""
    head, *body = rows(result)
    lines = [_markdown_line(head), _markdown_line(tuple("---" for _ in head)), *map(_markdown_line, body)]
    title = f"## {result.source}: {result.title}"
    return "\n\n".join([title, f"{result.question} {_scale(result)}", "\n".join(lines), _notes(result)]) + "\n"


def in_short(results: Sequence[SweepResult]) -> str:
    """A list of all sweeps: which of the paper's differences hold, which do not, and which cannot be told."""
    return "\n".join(f"- **{result.source}**, {result.title}: {_verdicts(result)}." for result in results)


def _verdicts(result: SweepResult) -> str:
    found: dict[str, list[str]] = {verdict: [] for verdict in get_args(Verdict)}
    several = len({claim.cell.backbone for claim in claims(result)}) > 1
    for claim in claims(result):
        if claim.verdict is not None:
            where = f" in {claim.cell.backbone}" if several else ""
            found[claim.verdict].append(f"`{claim.cell.variant}` against `{claim.cell.versus}`{where}")
    return "; ".join(f"*{verdict}*: {', '.join(named)}" for verdict, named in found.items() if named)


def csv_text(result: SweepResult) -> str:
    """The table with comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows(result))
    return text.getvalue()


def latex(result: SweepResult) -> str:
    """A `tabular` environment, for `booktabs`."""
    head, *body = ([_escaped(text) for text in row] for row in rows(result))
    lines = [rf"\begin{{tabular}}{{{'l' * len(head)}}}", r"\toprule", _latex_line(head), r"\midrule"]
    return "\n".join([*lines, *map(_latex_line, body), r"\bottomrule", r"\end{tabular}"]) + "\n"


def _row(claim: Claim) -> tuple[str, ...]:
    cell, d = claim.cell, claim.cell.difference
    runs = str(cell.score.runs + cell.nan_runs) + (f" ({cell.nan_runs} nan)" if cell.nan_runs else "")
    theirs = claim.printed_difference
    own = (cell.data, cell.backbone, cell.variant, f"{cell.parameters:,}", runs)
    accuracies = ("" if claim.printed is None else str(claim.printed), shown(cell.score))
    differences = ("" if theirs is None else f"{theirs:+.2f}", "" if d is None else _interval(d.value, d.low, d.high))
    tests = ("",) * 4 if d is None else tuple(map(_number, (d.t_p, d.welch_p, cell.holm_p, d.hedges_g)))
    return (*own, *accuracies, *differences, cell.versus or "", *tests, claim.verdict or "")


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:+.2f}" if isnan(low) else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _number(value: float) -> str:
    return "" if isnan(value) else f"{value:.2g}"


def _scale(result: SweepResult) -> str:
    return f"{len(result.runs)} of {result.planned} runs, {result.scale} scale: `{result.provenance['command']}`."


def _notes(result: SweepResult) -> str:
    """What the columns are, and which of the paper's networks ours are beside."""
    printed = {(c.printed.data, c.printed.backbone) for c in claims(result) if c.printed is not None}
    beside = ", ".join(f"{backbone} on {data}" for data, backbone in sorted(printed)) or "none: it prints no numbers"
    metric = result.metric
    return (
        f"Paper: {beside}. Ours: test {metric.words} after the last epoch{metric.reading}, mean ± standard deviation "
        "over seeds; "
        "differences with the 95 % interval of Welch's test; Holm's p is Welch's corrected for all rows."
        f"{_distances(result)}"
    )


def _distances(result: SweepResult) -> str:
    """In which features generated images are compared with real ones."""
    details = next((run.details for run in result.runs if "features" in run.details), None)
    if details is None:
        return ""
    return (
        f" Distances are in the features of {details['features']} (SHA-256 {details['features_sha256'][:8]}), of "
        f"{details['images']} generated images from {details['reference_images']} training images; that of the real "
        f"test images is {details['of_test_images']:.2f}."
    )


def _markdown_line(row: tuple[str, ...]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"


def _latex_line(row: list[str]) -> str:
    return " & ".join(row) + r" \\"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
