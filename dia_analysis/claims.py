"""Does what the paper's tables say hold in a sweep of one's own?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import isnan
from typing import Literal

from dia_analysis.sweep_result import Cell, SweepResult

Verdict = Literal["holds", "does not hold", "not enough runs", "the paper gives no number"]


@dataclass(frozen=True)
class Printed:
    """An accuracy of the paper, in percent; `accuracy` is None where it prints nan, `std` where it prints none."""

    data: str
    backbone: str
    accuracy: float | None
    std: float | None

    def __str__(self) -> str:
        if self.accuracy is None:
            return "nan"
        return f"{self.accuracy:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}")


@dataclass(frozen=True)
class Claim:
    """A cell of a sweep beside the paper's numbers for the variant and for what it is compared with.

    The paper's are those of the same data and backbone or, for a sweep at another scale, of the first ones of the
    paper's table. The verdict is about the difference: it `holds` if ours has the sign of the paper's and the 95 %
    interval leaves zero out, `does not hold` if it has the other sign and leaves zero out; otherwise there are
    `not enough runs` to tell. Where the paper prints nan, the loss must not be finite in ours in every run.
    """

    cell: Cell
    printed: Printed | None
    printed_versus: Printed | None
    verdict: Verdict | None

    @property
    def printed_difference(self) -> float | None:
        """The paper's difference, in percent."""
        pair = (self.printed, self.printed_versus)
        if any(p is None or p.accuracy is None for p in pair):
            return None
        return self.printed.accuracy - self.printed_versus.accuracy  # type: ignore[union-attr, operator]


def claims(result: SweepResult) -> list[Claim]:
    """Every cell of a sweep beside the paper; a cell that is the reference has no verdict."""
    cells = result.cells()
    return [_claim(result, cell, cells) for cell in cells]


def _claim(result: SweepResult, cell: Cell, cells: list[Cell]) -> Claim:
    own, against = (_printed(result.name, cell, name) for name in (cell.variant, cell.versus))
    if cell.versus is None:
        return Claim(cell, own, None, None)
    other = next((c for c in cells if (c.data, c.backbone, c.variant) == (cell.data, cell.backbone, cell.versus)), None)
    return Claim(cell, own, against, _verdict(cell, other, own, against))


def _verdict(cell: Cell, other: Cell | None, own: Printed | None, against: Printed | None) -> Verdict:
    if own is None or against is None or own.accuracy == against.accuracy:
        return "the paper gives no number"
    if own.accuracy is None or against.accuracy is None:
        return _explosion(cell, other, own, against)
    if cell.difference is None or isnan(cell.difference.low):
        return "not enough runs"
    if cell.difference.low <= 0 <= cell.difference.high:
        return "not enough runs"
    return "holds" if (cell.difference.value > 0) == (own.accuracy > against.accuracy) else "does not hold"


def _explosion(cell: Cell, other: Cell | None, own: Printed, against: Printed) -> Verdict:
    """The paper prints nan on one side: all our runs of that side, and none of the other, must have come to that."""
    if other is None:
        return "not enough runs"
    ours = [_all_or_none(cell), _all_or_none(other)]
    printed = [own.accuracy is None, against.accuracy is None]
    return "holds" if ours == printed else "does not hold"


def _all_or_none(cell: Cell) -> bool | None:
    """True if every run exploded, False if none did."""
    if cell.nan_runs == 0:
        return False
    return True if cell.score.runs == 0 else None


def _printed(sweep: str, cell: Cell, variant: str | None) -> Printed | None:
    """The paper's number for a variant: of the same data and backbone, or else the first in its table."""
    table = _paper().get(sweep, {})
    same = table.get((cell.data, cell.backbone), {})
    found = same or next(iter(table.values()), {})
    return None if variant is None else found.get(variant)


@cache
def _paper() -> Mapping[str, Mapping[tuple[str, str], Mapping[str, Printed]]]:
    text = (files("dia_analysis") / "paper_accuracies.json").read_text(encoding="utf-8")
    tables: dict[str, dict[tuple[str, str], dict[str, Printed]]] = {}
    for row in json.loads(text):
        place = (row["data"], row["backbone"])
        printed = Printed(*place, row["accuracy"], row["std"])
        tables.setdefault(row["sweep"], {}).setdefault(place, {})[row["variant"]] = printed
    return tables
