"""Tables for pages: what stands in a cell, and the number behind it, by which a reader can sort."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class Cell:
    """The text of a cell and the number behind it, to six digits; None for words, and where there is no number."""

    text: str
    value: str | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is the row's head."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Cell | str]]) -> Table:
    """A table of cells; a text is a cell without a number."""
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(caption, tuple(heads), cells)


def number(value: float | None, form: str, after: str = "") -> Cell:
    """A cell with a number in the given format, or a dash; `after` follows the number."""
    if value is None or not isfinite(value):
        return Cell("–")
    return Cell(f"{value:{form}}{after}", exact(value))


def exact(value: float) -> str:
    """A number as a cell keeps it: to six digits, whole numbers whole."""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
