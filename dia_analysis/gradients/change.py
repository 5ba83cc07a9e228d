"""What becomes of the gradient on its way back from the last stage to the first, in one word."""

from dataclasses import dataclass
from math import inf, log10
from typing import Literal

SHARP = 1.0  # decades, a factor of 10, from which on a gradient vanishes or explodes
KEPT = log10(2)  # decades, a factor of 2, up to which it keeps its size
Word = Literal["vanishes", "shrinks", "keeps its size", "grows", "explodes", "is not finite", "inconclusive"]
Span = tuple[float, float]

MILD: dict[frozenset[Word], Word] = {
    frozenset({"vanishes", "shrinks"}): "shrinks",
    frozenset({"explodes", "grows"}): "grows",
}


@dataclass(frozen=True)
class Change:
    """Decades that |g| gains from the last stage's output to the first's: of its mean, and of its median.

    Minus infinity where it is exactly zero at the first stage only, None where nothing can be said.
    """

    mean: float | None
    median: float | None


def decades(early: float | None, late: float | None) -> float | None:
    """How many decades larger it is at the earlier output; None if it is zero at both, or there is no number."""
    if early is None or late is None or (early == 0 and late == 0):
        return None
    if early == 0 or late == 0:
        return inf if late == 0 else -inf
    return log10(early / late)


def decades_text(change: float) -> str:
    """A change in decades, with its sign."""
    if change == -inf:
        return "-∞ (to exactly zero)"
    return "+∞ (from exactly zero)" if change == inf else f"{change:+.2f}"


def word(mean: Span | None, median: Span | None) -> Word:
    """The one word for what mean and median do, each given as the decades from lowest to highest (alike for one).

    Both must agree; if one vanishes and the other shrinks, it shrinks. Where the median is zero at both ends, which
    is None, the mean decides.
    """
    if mean is None:
        return "inconclusive"
    words = {_of(span) for span in (mean, median) if span is not None}
    return words.pop() if len(words) == 1 else MILD.get(frozenset(words), "inconclusive")


def _of(span: Span) -> Word:
    low, high = span
    if high <= -SHARP:
        return "vanishes"
    if low >= SHARP:
        return "explodes"
    if low >= -KEPT and high <= KEPT:
        return "keeps its size"
    if high < -KEPT:
        return "shrinks"
    return "grows" if low > KEPT else "inconclusive"
