"""Does what the paper's tables say hold in a sweep of one's own?"""

import re
from dataclasses import dataclass
from math import isnan
from typing import Any, Literal

from dia_analysis.paper.numbers import EPOCHS
from dia_analysis.paper.printed import Printed, paper_accuracy
from dia_analysis.paper.sweeps import Cell, SweepResult
from dia_analysis.statistics.significance import ALPHA, FEWEST, fewest

Verdict = Literal["holds", "does not hold", "smaller than the paper's", "inconclusive", "the paper gives no number"]
Decided = tuple[Verdict, str]


@dataclass(frozen=True)
class Claim:
    """A cell of a sweep beside the paper's numbers for the variant and for what it is compared with.

    The verdict is about the difference, by one rule for all rows of a table, whose tests are one family:

    - `holds` and `does not hold`: Holm's p is below 0.05, and the difference has the paper's sign, or the other;
    - `smaller than the paper's`: zero is among what is compatible with our runs, and the paper's difference is not:
      the simultaneous interval leaves it out;
    - `inconclusive`: both are compatible with our runs (the cell's `smallest_difference` is what could have been seen),
      or nothing could be tested, for the `reason` given.

    Where the paper prints nan on one side, what is compared is how many runs exploded. `other` is the cell that this
    one is compared with.
    """

    cell: Cell
    printed: Printed | None
    printed_versus: Printed | None
    verdict: Verdict | None
    reason: str = ""
    other: Cell | None = None

    @property
    def printed_difference(self) -> float | None:
        """The paper's difference, in percent."""
        pair = (self.printed, self.printed_versus)
        if any(p is None or p.accuracy is None for p in pair):
            return None
        return self.printed.accuracy - self.printed_versus.accuracy  # type: ignore[union-attr, operator]

    @property
    def other_data(self) -> str | None:
        """The paper's data, where ours are not the same."""
        return None if self.printed is None or self.printed.data == self.cell.data else self.printed.data


def claims(result: SweepResult) -> list[Claim]:
    """Every cell of a sweep beside the paper; a cell that is the reference has no verdict."""
    cells = result.cells()
    by_place = {(cell.data, cell.backbone, cell.variant): cell for cell in cells}
    return [_claim(result, cell, by_place.get((cell.data, cell.backbone, cell.versus or ""))) for cell in cells]


def _claim(result: SweepResult, cell: Cell, other: Cell | None) -> Claim:
    own, against = (paper_accuracy(result.name, cell.data, cell.backbone, name) for name in (cell.variant, cell.versus))
    if cell.versus is None:
        return Claim(cell, own, None, None)
    return Claim(cell, own, against, *_verdict(result, cell, other, own, against), other)


def _verdict(
    result: SweepResult, cell: Cell, other: Cell | None, own: Printed | None, against: Printed | None
) -> Decided:
    if own is None or against is None or own.accuracy == against.accuracy:
        return "the paper gives no number", ""
    runs = (cell.runs, 0 if other is None else other.runs)
    if other is None or min(runs) < FEWEST:
        return "inconclusive", f"it takes {FEWEST} runs of each, and there are {runs[0]} and {runs[1]}"
    if own.accuracy is None or against.accuracy is None:
        return _of_explosions(cell, other, own.accuracy is None, _smaller_trial(result, cell, own))
    if cell.nan_runs or other.nan_runs:
        return "inconclusive", f"{_exploded(cell, other)}, so the scores of the others are a selection"
    return _of_scores(cell, own.accuracy - against.accuracy)


def _of_scores(cell: Cell, theirs: float) -> Decided:
    """Holm's p decides; without it, whether the paper's difference is compatible with our runs."""
    if cell.difference is None or isnan(cell.holm_p):
        return "inconclusive", "no run differs from another of its kind, so nothing can be tested"
    low, high = cell.simultaneous_interval
    sign = 1 if theirs > 0 else -1
    beyond = [] if low <= theirs <= high else ["larger" if sign * cell.difference.value > abs(theirs) else "smaller"]
    if cell.holm_p < ALPHA and sign * cell.difference.value > 0:
        return "holds", "".join(f"{word} than the paper's" for word in beyond)
    if cell.holm_p < ALPHA:
        return "does not hold", ""
    if beyond:
        return "smaller than the paper's", ""
    return "inconclusive", ""


def _of_explosions(cell: Cell, other: Cell, own_explodes: bool, smaller_trial: str) -> Decided:
    """The paper prints nan on one side: more of our runs of that side must have come to that than of the other.

    That none did is evidence only in networks as deep as the paper's that were trained as long.
    """
    more = cell.nan_runs / cell.runs - other.nan_runs / other.runs
    as_printed = more > 0 if own_explodes else more < 0
    if cell.holm_p < ALPHA and as_printed:
        return "holds", ""
    if smaller_trial and not as_printed:
        return "inconclusive", f"{_exploded(cell, other)}, but {smaller_trial}"
    if cell.holm_p < ALPHA:
        return "does not hold", ""
    return "inconclusive", f"{_exploded(cell, other)}; {_needed(cell, other)}"


def _exploded(cell: Cell, other: Cell) -> str:
    return f"{cell.nan_runs} of {cell.runs} runs exploded against {other.nan_runs} of {other.runs}"


def _needed(cell: Cell, other: Cell) -> str:
    """What would have decided, at the strictest of Holm's steps."""
    least = fewest(cell.runs, other.runs, ALPHA / cell.tests)
    if least is None:
        return "no outcome of so few runs could decide"
    return f"{least} of {cell.runs} against 0 of {other.runs} would decide"


def _smaller_trial(result: SweepResult, cell: Cell, paper: Printed) -> str:
    """What keeps our runs from being evidence that nothing explodes: fewer layers or epochs than the paper's."""
    recipe: dict[str, Any] = result.provenance.get("recipes", {}).get(cell.backbone, {})
    depth, epochs, least = _depth(cell.backbone), recipe.get("epochs"), _depth(paper.backbone)
    if depth is None or epochs is None or least is None:
        return "how deep these networks are and how long they were trained is not known"
    if depth >= least and epochs >= EPOCHS:
        return ""
    return f"{depth} layers in {epochs} epochs are a smaller trial than the paper's {least} layers in {EPOCHS}"


def _depth(backbone: str) -> int | None:
    found = re.search(r"(?:net|next|wrn)(\d+)", backbone)
    return int(found[1]) if found else None
