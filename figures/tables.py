"""The paper's tables with numbers of one's own beside: as Markdown, CSV, LaTeX, and text for a terminal."""

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from math import isnan
from pathlib import Path
from typing import Any, get_args

from dia_analysis.paper.claims import Claim, Verdict, claims
from dia_analysis.paper.printed import paper_data
from dia_analysis.paper.sweeps import Cell, SweepResult, TrainedRun, spread_text
from dia_analysis.results.words import quantity

HEAD = ("data", "backbone", "variant", "parameters", "runs", "paper", "ours", "paper's difference", "our difference",
        "simultaneous interval", "against", "t-test p", "Welch p", "exact p", "Holm p", "Hedges g", "detectable",
        "verdict", "reason")  # fmt: skip
SHORT = ("variant", "against", "runs", "paper", "ours", "paper's", "our difference", "Holm p", "verdict")
GIVEN_UP = ("runs", "paper", "against", "Holm p", "ours", "paper's")  # in this order, where a terminal is too narrow
UNDECIDED: tuple[Verdict, Verdict] = ("inconclusive", "the paper gives no number")
LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
         "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"}  # fmt: skip
TOGETHER = "the interval that holds for all comparisons of the table together in 95 % (Bonferroni)"
WELCH = f"differences with the 95 % interval of Welch's test, and {TOGETHER}"
RULE = (
    "Verdicts: all comparisons of the table are one family. *holds* and *does not hold*: Holm's p is below 0.05, and "
    "the difference has the paper's sign or the other; *smaller than the paper's*: the interval that holds for all "
    "leaves the paper's difference out, but not zero; *inconclusive*: neither, and beside it the "
    "detectable difference: the smallest that so many runs with this spread show in four of five cases."
)


def rows(result: SweepResult) -> list[tuple[str, ...]]:
    """The table as text, its first row the names of the columns."""
    return [HEAD, *map(_row, claims(result))]


def markdown(result: SweepResult) -> str:
    """A heading, the table, and how to read it."""
    head, *body = _without_empty(rows(result))
    lines = [_markdown_line(head), _markdown_line(tuple("---" for _ in head)), *map(_markdown_line, body)]
    question = f"{result.question} {_count(result)}: `{result.provenance['command']}`."
    return "\n\n".join([f"## {heading(result)}", question, "\n".join(lines), _notes(result, WELCH)]) + "\n"


def text(result: SweepResult, width: int = 100) -> str:
    """The table in aligned columns, one block for each backbone, in at most so many columns of a terminal."""
    found = claims(result)
    blocks = [_block(list(own), width) for _, own in groupby(found, lambda c: (c.cell.data, c.cell.backbone))]
    notes = _notes(result, f"differences with {TOGETHER}").replace("*", "")
    parts = [_wrapped(f"{heading(result)}. {_count(result)}.", width), _wrapped(result.question, width)]
    return "\n\n".join([*parts, *blocks, _wrapped(notes, width)]) + "\n"


def in_short(results: Sequence[SweepResult]) -> str:
    """A list of all sweeps: which of the paper's differences hold, which do not, and which are inconclusive."""
    return "\n".join(f"- **{result.source}**, {_on_data(result)}: {_verdicts(result)}." for result in results)


def heading(result: SweepResult) -> str:
    """The paper's table, and what it is about here: on which data, where they are not the paper's."""
    return f"{result.source}: {_on_data(result)}"


def csv_text(result: SweepResult) -> str:
    """The table with comma-separated values."""
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows(result))
    return content.getvalue()


def latex(result: SweepResult) -> str:
    """A `tabular` environment, for `booktabs`."""
    head, *body = ([_escaped(text) for text in row] for row in _without_empty(rows(result)))
    lines = [rf"\begin{{tabular}}{{{'l' * len(head)}}}", r"\toprule", _latex_line(head), r"\midrule"]
    return "\n".join([*lines, *map(_latex_line, body), r"\bottomrule", r"\end{tabular}"]) + "\n"


def to_dict(result: SweepResult) -> dict[str, object]:
    """The table as plain values for JSON: each row by the heads of its columns."""
    head, *body = rows(result)
    return {"sweep": result.name, "scale": result.scale, "rows": [dict(zip(head, row, strict=True)) for row in body]}


def write(results: Iterable[SweepResult], folder: Path) -> None:
    """Write each table as Markdown, CSV and LaTeX into a folder that exists."""
    for result in results:
        for suffix, text_of in (("md", markdown), ("csv", csv_text), ("tex", latex)):
            path = folder / f"{result.name}-{result.scale}.{suffix}"
            path.write_text(text_of(result), encoding="utf-8", newline="")


def _on_data(result: SweepResult) -> str:
    ours = list(dict.fromkeys(run.data for run in result.runs))
    theirs = paper_data(result.name)
    instead = f" (the paper: {', '.join(theirs)})" if theirs and not set(ours) <= set(theirs) else ""
    return f"{result.title}, on {', '.join(ours)}{instead}" if ours else result.title


def _count(result: SweepResult) -> str:
    return f"{len(result.runs)} of {quantity(result.planned, 'run')}, {result.scale} scale"


def _verdicts(result: SweepResult) -> str:
    found: dict[str, list[str]] = {verdict: [] for verdict in get_args(Verdict)}
    several = len({claim.cell.backbone for claim in claims(result)}) > 1
    for claim in claims(result):
        if claim.verdict is not None:
            where = f" in {claim.cell.backbone}" if several else ""
            found[claim.verdict].append(f"`{claim.cell.variant}` against `{claim.cell.versus}`{where}")
    return "; ".join(f"*{verdict}*: {', '.join(named)}" for verdict, named in found.items() if named)


def _row(claim: Claim) -> tuple[str, ...]:
    cell, d = claim.cell, claim.cell.difference
    own = (_data(claim), cell.backbone, cell.variant, f"{cell.parameters:,}", _runs(cell))
    paper = ("" if claim.printed is None else str(claim.printed), spread_text(cell.score), _theirs(claim))
    ours = "" if d is None else _with_interval(d.value, d.low, d.high)
    p = ("", "") if d is None else (_number(d.t_p), _number(d.welch_p))
    return (
        *own,
        *paper,
        _counts(claim) or ours,
        _between(*cell.simultaneous_interval),
        cell.versus or "",
        *p,
        _number(cell.exact_p),
        _number(cell.holm_p),
        "" if d is None else _number(d.hedges_g),
        _detectable(claim),
        _said(claim),
        claim.reason,
    )


def _block(own: list[Claim], width: int) -> str:
    """One backbone on one set of data: what was compared, and below it why what is inconclusive is."""
    lines = _aligned(_fitting(_without_empty([SHORT, *map(_short, own)]), width))
    reasons = [f"{c.cell.variant} against {c.cell.versus}: {c.verdict}: {c.reason}." for c in own if c.reason]
    return "\n".join([_wrapped(_place(own), width), *lines, *(_wrapped(reason, width) for reason in reasons)])


def _place(own: list[Claim]) -> str:
    cell = own[0].cell
    beside = next((claim.printed for claim in own if claim.printed is not None), None)
    if beside is None:
        return f"{cell.backbone} on {cell.data}"
    about = " verdicts are about this data;" if beside.data != cell.data else ""
    return f"{cell.backbone} on {cell.data};{about} the paper's numbers are of {beside.backbone} on {beside.data}"


def _short(claim: Claim) -> tuple[str, ...]:
    cell, d = claim.cell, claim.cell.difference
    paper = "" if claim.printed is None else str(claim.printed)
    ours = "" if d is None else _with_interval(d.value, *cell.simultaneous_interval)
    numbers = (paper, spread_text(cell.score), _theirs(claim), _counts(claim) or ours, _number(cell.holm_p))
    verdict = "" if claim.verdict == UNDECIDED[-1] else claim.verdict
    said = " below ".join(filter(None, (verdict, _detectable(claim))))
    return (cell.variant, cell.versus or "", _runs(cell), *numbers, said)


def _fitting(table: list[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """Without the least important columns, as far as the terminal is too narrow."""
    for name in GIVEN_UP:
        if max(map(len, _aligned(table))) <= width:
            break
        table = [tuple(c for c, head in zip(row, table[0], strict=True) if head != name) for row in table]
    return table


def _aligned(table: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(c.ljust(size) for c, size in zip(row, widths, strict=True)).rstrip() for row in table]


def _detectable(claim: Claim) -> str:
    """The smallest difference that could have been seen, where none was."""
    smallest = claim.cell.smallest_difference
    return f"{smallest:.2f}" if claim.verdict == "inconclusive" and not isnan(smallest) else ""


def _data(claim: Claim) -> str:
    """The data, and beside them the paper's where they are others."""
    return claim.cell.data + (f" (paper: {claim.other_data})" if claim.other_data else "")


def _said(claim: Claim) -> str:
    """The verdict; on other data than the paper's it is about these."""
    about = " on this data" if claim.other_data and claim.verdict not in (None, *UNDECIDED) else ""
    return (claim.verdict or "") + about


def _runs(cell: Cell) -> str:
    return str(cell.runs) + (f" ({cell.nan_runs} nan)" if cell.nan_runs else "")


def _theirs(claim: Claim) -> str:
    return "" if claim.printed_difference is None else f"{claim.printed_difference:+.2f}"


def _counts(claim: Claim) -> str:
    """How many runs exploded, where that is compared."""
    cell, other = claim.cell, claim.other
    if other is None or isnan(cell.exact_p):
        return ""
    return f"exploded: {cell.nan_runs} of {cell.runs}, {other.nan_runs} of {other.runs}"


def _with_interval(value: float, low: float, high: float) -> str:
    return " ".join(filter(None, (f"{value:+.2f}", _between(low, high))))


def _between(low: float, high: float) -> str:
    return "" if isnan(low) else f"[{low:+.2f}, {high:+.2f}]"


def _number(value: float) -> str:
    return "" if isnan(value) else f"{value:.2g}"


def _notes(result: SweepResult, differences: str) -> str:
    """What the columns are, and which of the paper's networks ours are beside."""
    found = claims(result)
    printed = {(c.printed.data, c.printed.backbone) for c in found if c.printed is not None}
    beside = ", ".join(f"{backbone} on {data}" for data, backbone in sorted(printed)) or "it prints no numbers here"
    metric, tests = result.metric, max((c.cell.tests for c in found), default=0)
    return (
        f"Paper: {beside}. Ours: test {metric.words} after the last epoch{metric.reading}, mean ± standard deviation "
        f"over seeds; {differences}. Holm's p is Welch's, or for counts of exploded runs Fisher's exact p, corrected "
        f"for the {quantity(tests, 'comparison')} of the table.{_rule(found)}{_trained(result.runs)}"
        f"{_distances(result)}"
    )


def _rule(found: list[Claim]) -> str:
    """How the verdicts are made, where there are any."""
    given = any(claim.verdict not in (None, UNDECIDED[-1]) for claim in found)
    return f" {RULE}" if given else ""


def _trained(runs: Iterable[TrainedRun]) -> str:
    """In which precision, on what; runs that are older than this record do not say."""
    counts: dict[str, int] = {}
    for run in runs:
        words = _machine(run.machine)
        counts[words] = counts.get(words, 0) + 1
    listed = ", ".join(f"{quantity(count, 'run')} {words}" for words, count in counts.items())
    return f" Trained: {listed}." if listed else ""


def _machine(machine: Any) -> str:
    return f"in {machine['precision']} on {machine['processor']}" if machine else "in a precision that was not recorded"


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


def _without_empty(table: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave out columns in which nothing stands."""
    kept = [column for column in zip(*table, strict=True) if any(column[1:]) or len(column) == 1]
    return list(zip(*kept, strict=True))


def _wrapped(paragraph: str, width: int) -> str:
    return textwrap.fill(paragraph, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _markdown_line(row: tuple[str, ...]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"


def _latex_line(row: list[str]) -> str:
    return " & ".join(row) + r" \\"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
