"""Fig. 2 may be read in several ways: the numbers of each, side by side, before training and by chance too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dia_analysis.correlation.readings import StageReadings, with_intervals
from dia_analysis.correlation.results import CorrelationResult, StageCorrelation
from dia_analysis.paper.numbers import MEAN_R
from dia_analysis.results.text_table import text_table
from dia_analysis.statistics.intervals import Estimate

NONE = Estimate(np.nan)
NOTE = (
    f"The paper explains r by maps that are proportional; which reading its {MEAN_R} is, is not known. A reading that "
    "is as high before training or with each layer's channels in another order measures how the values are spread, "
    "not how alike layers are."
)
Found = tuple[Estimate, float | None]
Reading = Callable[[CorrelationResult, StageCorrelation, StageReadings], Found]


@dataclass(frozen=True)
class ReadingRow:
    """One reading of one stage: of the network, of it before training, and with channels in another order (`chance`,
    the mean over draws, None where it was not drawn).
    """

    reading: str
    stage: int
    trained: Estimate
    before: Estimate
    reestimated: Estimate
    chance: float | None

    def to_dict(self) -> dict[str, Any]:
        """As dia.correlation/2 has it."""
        named = {"mean": self.trained, "untrained": self.before, "untrained_reestimated": self.reestimated}
        return {"reading": self.reading, "stage": self.stage, **with_intervals(named), "channels_permuted": self.chance}

    def texts(self) -> tuple[str, ...]:
        """Its cells in a table."""
        values = (self.trained.value, self.before.value, self.reestimated.value)
        return (
            self.reading,
            str(self.stage),
            *map(_text, values),
            _text(np.nan if self.chance is None else self.chance),
        )


def read_figure2(
    trained: CorrelationResult, before: CorrelationResult | None, reestimated: CorrelationResult | None
) -> list[ReadingRow]:
    """Every reading of every stage that has two layers."""
    rows = []
    for name, read in READINGS.items():
        for stage in trained.stages:
            found = _read(trained, stage, read)
            if found is None or np.isnan(found[0].value):
                continue
            first, again = (_of(result, stage.stage, read) for result in (before, reestimated))
            rows.append(ReadingRow(name, stage.stage, found[0], first, again, found[1]))
    return rows


def readings_table(rows: list[ReadingRow]) -> str:
    """A row for each reading and stage."""
    heads = ("reading", "stage", "mean", "before training", "re-estimated", "channels permuted")
    return f"Fig. 2 in several readings:\n{text_table([heads, *(row.texts() for row in rows)], left=[0])}\n{NOTE}"


def _read(result: CorrelationResult, stage: StageCorrelation, read: Reading) -> Found | None:
    if stage.readings is None or len(stage.layers) < 2:
        return None
    return read(result, stage, stage.readings)


def _of(result: CorrelationResult | None, stage: int, read: Reading) -> Estimate:
    found = None if result is None else _read(result, result.stages[stage - 1], read)
    return NONE if found is None else found[0]


def _number(name: str) -> Reading:
    return lambda result, stage, readings: _by_chance(readings, name)


def _by_chance(readings: StageReadings, name: str) -> Found:
    chance = readings.null.chances.get(name)
    return readings.numbers.get(name, NONE), None if chance is None else chance.mean


def _similarity(name: str) -> Reading:
    def read(result: CorrelationResult, stage: StageCorrelation, readings: StageReadings) -> Found:
        found = readings.similarities.get(name)
        return (NONE, None) if found is None else (found.mean, None if found.null is None else found.null.mean)

    return read


def _neighbors(result: CorrelationResult, stage: StageCorrelation, readings: StageReadings) -> Found:
    chance = readings.distances.chance
    return readings.distances.means["mean_r"][0], None if chance is None else sum(chance[0]) / 2


def _control(which: Literal["inputs", "outputs"]) -> Reading:
    def read(result: CorrelationResult, stage: StageCorrelation, readings: StageReadings) -> Found:
        measured: Mapping[int, StageCorrelation] = getattr(result.controls, which, {})
        found = measured.get(stage.stage)
        return (NONE, None) if found is None or found.readings is None else _by_chance(found.readings, "mean_r")

    return read


READINGS: Mapping[str, Reading] = {
    "r, image by image": _number("mean_r"),
    "r, all images pooled": _number("pooled_r"),
    "cosine, not centered": _similarity("cosine"),
    "r of logits": _similarity("logit"),
    "r of maps sorted by size": _similarity("sorted"),
    "r, neighboring layers": _neighbors,
    "r of what the gates see": _control("inputs"),
    "r of block outputs": _control("outputs"),
}


def _text(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:z.2f}"
