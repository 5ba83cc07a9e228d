"""Matrices of layers as HTML tables: every number is text, its color says the same."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from matplotlib import colormaps

from dia_analysis import StageCorrelation, StageGini
from dia_analysis.importance.readings import GiniReadings
from dia_analysis.paper.untrained import BesideUntrained
from figures.pages.html_table import exact

MOST_LAYERS = 64  # of a stage: more cells than 4,096 nobody reads one by one
SMALL = 8  # layers up to which the numbers are in the size of the text
DIVERGING, SEQUENTIAL = 21, 11  # steps of the color scales
NOT_ABOVE_NULL = "not above its null"
S = TypeVar("S", StageCorrelation, StageGini)


@dataclass(frozen=True)
class Square:
    """A cell: what it says, its exact number, the class of its color, and a mark with its meaning."""

    text: str
    value: str
    color: str
    mark: str = ""

    @property
    def short(self) -> str:
        """The text where there is little room: .85 for 0.85."""
        return "1" if self.text == "1.00" else self.text.replace("0.", ".")


@dataclass(frozen=True)
class Matrix:
    """A stage of a network: rows and columns are layers, counted from 1. `names` are those of all its layers.

    `kind` tells the matrices of one network and stage apart, `about` sums one up; a cell that does not exist is None.
    """

    network: str
    stage: int
    kind: str
    about: str
    rows: Mapping[int, tuple[Square | None, ...]]
    columns: Sequence[int]
    names: Sequence[str]

    @property
    def small(self) -> bool:
        """Whether there is room for numbers in the size of the text."""
        return len(self.columns) <= SMALL


@dataclass(frozen=True)
class Stage:
    """A stage's matrices, and the networks of which it has none, with the reason."""

    number: int
    matrices: tuple[Matrix, ...]
    notes: tuple[str, ...]

    @property
    def by_network(self) -> dict[str, list[Matrix]]:
        """The matrices of each network."""
        names = dict.fromkeys(matrix.network for matrix in self.matrices)
        return {name: [matrix for matrix in self.matrices if matrix.network == name] for name in names}


def correlation_matrices(results: Mapping[str, BesideUntrained]) -> list[Stage]:
    """The mean r of every two layers, stage by stage: networks and the same untrained side by side."""
    parts = [
        (name, kind, result.stages)
        for name, both in results.items()
        for kind, result in (("trained" if both.untrained else "as given", both.trained), ("untrained", both.untrained))
        if result is not None
    ]
    return _by_stage(parts, _correlation)


def gini_matrices(results: Mapping[str, GiniReadings]) -> list[Stage]:
    """The importance of every earlier layer for every layer, by stage, networks and kinds of rows side by side."""
    parts = [
        (name, rows, result.stages) for name, readings in results.items() for rows, result in readings.trained.items()
    ]
    highest = max((_highest(stage) for _, _, stages in parts for stage in stages), default=0) or 1.0

    def matrix(name: str, kind: str, stage: StageGini) -> Matrix:
        return _gini(name, kind, stage, highest)

    return _by_stage(parts, matrix)


def colors() -> str:
    """The style of the cells: a diverging scale (d0 for -1 to d20 for 1) and a sequential one (s0 for 0 to s10)."""
    return "".join([*_scale("d", "RdBu_r", DIVERGING), *_scale("s", "Blues", SEQUENTIAL)])


def _by_stage(parts: Sequence[tuple[str, str, Sequence[S]]], matrix: Callable[[str, str, S], Matrix]) -> list[Stage]:
    numbers = sorted({stage.stage for _, _, stages in parts for stage in stages})
    found = {n: [(name, kind, s) for name, kind, stages in parts for s in stages if s.stage == n] for n in numbers}
    return [_stage(number, some, matrix) for number, some in found.items()]


def _stage(number: int, found: Sequence[tuple[str, str, S]], matrix: Callable[[str, str, S], Matrix]) -> Stage:
    notes = dict.fromkeys(note for name, _, stage in found if (note := _why_none(name, stage)))
    drawn = tuple(matrix(name, kind, stage) for name, kind, stage in found if _why_none(name, stage) is None)
    return Stage(number, drawn, tuple(notes))


def _why_none(name: str, stage: StageCorrelation | StageGini) -> str | None:
    if len(stage.layers) == 1:
        return f"{name} has one attention layer in this stage ({stage.layers[0][0]}), so there is no pair of layers."
    if len(stage.layers) > MOST_LAYERS:
        return f"{name} has {len(stage.layers)} layers in this stage, too many for a table: see the figure."
    return None


def _correlation(name: str, kind: str, stage: StageCorrelation) -> Matrix:
    count = range(1, len(stage.layers) + 1)
    rows = {layer: tuple(map(_r, stage.matrix[layer - 1])) for layer in count}
    mean = "no r is defined" if stage.mean_r is None else f"mean r = {stage.mean_r:z.2f}"
    return Matrix(name, stage.stage, kind, f"{kind}: {mean}", rows, count, _names(stage))


def _r(value: float) -> Square:
    if np.isnan(value):
        return Square("–", "", "")
    return Square(f"{value:z.2f}", exact(value), f"d{round((value + 1) / 2 * (DIVERGING - 1))}")


def _gini(name: str, kind: str, stage: StageGini, highest: float) -> Matrix:
    values, unsure = stage.importance(), np.isfinite(stage.permutation()) & ~stage.above_null()
    rows = {
        target + 2: tuple(
            _importance(values[target, source], bool(unsure[target, source]), highest) if source <= target else None
            for source in range(len(values))
        )
        for target in range(len(values))
    }
    share = stage.beyond_two_nearest()
    beyond = "no share beyond the two nearest" if np.isnan(share) else f"{share:.2f} beyond the two nearest"
    about = f"{kind}: {beyond}, R² {_mean_r2(stage)}"
    return Matrix(name, stage.stage, kind, about, rows, range(1, len(stage.layers)), _names(stage))


def _mean_r2(stage: StageGini) -> str:
    mean = stage.mean_r2()
    return "–" if mean is None else f"{mean:z.2f}"


def _importance(value: float, unsure: bool, highest: float) -> Square:
    if np.isnan(value):
        return Square("–", "", "")
    step = round(value / highest * (SEQUENTIAL - 1))
    return Square(f"{value:.2f}", exact(value), f"s{step}", NOT_ABOVE_NULL if unsure else "")


def _highest(stage: StageGini) -> float:
    return float(np.nanmax(stage.importance(), initial=0))


def _names(stage: StageCorrelation | StageGini) -> list[str]:
    shared = any(call for _, call in stage.layers)
    return [f"{module}, call {call + 1}" if shared else module for module, call in stage.layers]


def _scale(letter: str, colormap: str, steps: int) -> Iterator[str]:
    for step, (red, green, blue, _) in enumerate(colormaps[colormap](np.linspace(0, 1, steps))):
        text = "#000" if _luminance(red, green, blue) > 0.18 else "#fff"
        background = "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
        yield f".{letter}{step} {{ background: #{background}; color: {text}; }}\n"


def _luminance(*channels: float) -> float:
    """How light a color is, 0 to 1, as WCAG 2 defines it for contrast."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
