"""Runs of one network that differ in their seed: the mean over them, and an interval for other seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dia_analysis.correlation.readings import OF_PAIRS, SHARES, with_intervals
from dia_analysis.correlation.results import CorrelationResult
from dia_analysis.errors import AnalysisInputError
from dia_analysis.results.text_table import text_table
from dia_analysis.statistics.intervals import Estimate
from dia_analysis.statistics.seeds import LEAST, t_interval

SHOWN = ("mean_r", "mean_r_other_image", "r_from_static", "r_from_image", "mean_r_image", "cka", "channel_share")


@dataclass(frozen=True)
class Seeds:
    """Runs of one `network`: means over them, by stage and for all stages; from three runs on with Student's interval
    (n - 1 degrees of freedom) over runs. Images are no further sample here: each run's mean over them counts once.
    """

    network: str
    checkpoints: tuple[str, ...]
    stages: tuple[Mapping[str, Estimate], ...]
    all_stages: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """As dia.correlation/2 has it."""
        return {
            "network": self.network,
            "checkpoints": list(self.checkpoints),
            "stages": [{"stage": number, **with_intervals(stage)} for number, stage in enumerate(self.stages, 1)],
            **with_intervals(self.all_stages),
        }

    def summary(self) -> str:
        """A table of the stages, and the interval of r."""
        runs = len(self.checkpoints)
        rows = [(str(number), *_texts(stage)) for number, stage in enumerate(self.stages, 1)]
        table = text_table([("stage", *SHOWN), *rows, ("all", *_texts(self.all_stages))])
        fewer = f"; it takes {LEAST} for an interval" if runs < LEAST else ", with 95 % intervals for other seeds"
        return f"{self.network}: mean over {runs} runs that differ in their seed{fewer}\n\n{table}"


def over_seeds(network: str, results: Mapping[str, CorrelationResult]) -> Seeds:
    """The runs of one network together, by the checkpoints' names.

    Raises AnalysisInputError for networks whose stages differ.
    """
    runs = list(results.values())
    shapes = [[(stage.kind, len(stage.layers), stage.channels) for stage in run.stages] for run in runs]
    if any(shape != shapes[0] for shape in shapes):
        raise AnalysisInputError(
            "results", f"{', '.join(results)} have other stages, so they are not runs of one network"
        )
    by_run = [[stage.readings.numbers if stage.readings else {} for stage in run.stages] for run in runs]
    stages = tuple(_means(stage) for stage in zip(*by_run, strict=True))
    return Seeds(network, tuple(results), stages, _means([run.numbers for run in runs]))


def _means(runs: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """Of the numbers that every run has."""
    names = [name for name in (*OF_PAIRS, *SHARES) if all(name in run for run in runs)]
    return {name: _mean([run[name].value for run in runs]) for name in names}


def _mean(values: Sequence[float]) -> Estimate:
    interval = None if np.isnan(values).any() else t_interval(values)
    return Estimate(float(np.mean(values)), *(interval or (np.nan, np.nan)))


def _texts(numbers: Mapping[str, Estimate]) -> list[str]:
    return [_text(numbers[name]) if name in numbers else "-" for name in SHOWN]


def _text(number: Estimate) -> str:
    if np.isnan(number.value):
        return "-"
    value = f"{number.value:z.2f}"
    return f"{value} [{number.low:z.2f}, {number.high:z.2f}]" if number.has_interval else value
