"""What one network's importance is by two kinds of rows, and what it was before training: side by side."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from dia_analysis.importance.measure import GiniCollector
from dia_analysis.importance.results import (
    GiniResult,
    StageGini,
    above_text,
    left_out_text,
    number_text,
    share_text,
    stage_name,
)
from dia_analysis.importance.rows import ROWS_ARE, Rows
from dia_analysis.probes.common_channels import Aligned
from dia_analysis.probes.stages import StageMaps
from dia_analysis.probes.stream import Consume
from dia_analysis.results.base import Result, by_name
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HEADS = (
    *("stage", "layers", "rows", "R²", "null R²", "untrained R²"),
    *("beyond two nearest", "untrained", "if flat", "left out", "above null"),
)
Results = Mapping[Rows, GiniResult]
Stream = Callable[[Consume], int]  # hands on a network's maps, batch by batch, and gives the number of images
Progress = Callable[[str, int, int], None]
Align = Callable[[Sequence[StageMaps]], list[Aligned | None]]


@dataclass(frozen=True, repr=False)
class GiniReadings(Result):
    """Importance by each kind of rows: first those that were asked for, then whole vectors, from the same pass.

    `untrained` is the same of the network without its training, perhaps by fewer kinds of rows; None for maps from a
    store.
    """

    file = "gini"
    trained: Results
    untrained: Results | None

    @property
    def first(self) -> GiniResult:
        """By the rows that were asked for."""
        return next(iter(self.trained.values()))

    @property
    def vector(self) -> GiniResult:
        """By whole vectors, on which findings rest."""
        return self.trained["vector"]

    def pairs(self) -> list[tuple[Rows, StageGini, StageGini | None]]:
        """Every stage by every kind of rows, trained and untrained."""
        return [
            (rows, result.stages[index], self._untrained(rows, index))
            for index in range(len(self.first.stages))
            for rows, result in self.trained.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """The document dia.gini/1 by the rows asked for, with the other rows' and the untrained network's besides."""
        untrained = None if self.untrained is None else _others(list(self.untrained.values()))
        return {**self.first.to_dict(), **_others(list(self.trained.values())[1:]), "untrained": untrained}

    def summary(self) -> str:
        """The table, and a sentence on each thing that has no number or must be known to read one."""
        table = text_table([HEADS, *(_row(*pair) for pair in self.pairs())])
        kinds = [f"{rows}: {ROWS_ARE[rows]}." for rows in self.trained]
        return "\n".join([table, *kinds, *self.notes()])

    def notes(self) -> list[str]:
        """The sentences, each with its kind of rows."""
        notes = [f"{rows}, {note}" for rows, result in self.trained.items() for note in result.notes()]
        if self.untrained is not None and len(self.untrained) < len(self.trained):
            notes.append(f"untrained: {' and '.join(self.untrained)} rows only.")
        return notes

    @property
    def provenance(self) -> Provenance:  # type: ignore[override]
        """Where the network and the images come from."""
        return self.first.provenance

    def to_dataframe(self) -> "pd.DataFrame":
        """The Gini importance by network (trained, untrained), kind of rows, stage, target layer and source layer."""
        networks = {"trained": self.trained, "untrained": self.untrained or {}}
        frames = {(name, rows): r.to_dataframe() for name, by_rows in networks.items() for rows, r in by_rows.items()}
        return by_name(frames, "network", "rows")

    def datasets(self) -> dict[str, xr.Dataset]:
        """The trained network's, by kind of rows and stage."""
        return {f"{rows}-{name}": a for rows, result in self.trained.items() for name, a in result.datasets().items()}

    def panels(self) -> "Sequence[Callable[[Axes], object]]":
        """The triangles by the rows that were asked for."""
        return self.first.panels()

    def complete(self, axes: "Sequence[Axes]") -> None:
        """Their color bar."""
        self.first.complete(axes)

    def _untrained(self, rows: Rows, index: int) -> StageGini | None:
        found = None if self.untrained is None else self.untrained.get(rows)
        return None if found is None else found.stages[index]


def _others(results: list[GiniResult]) -> dict[str, Any]:
    return {result.rows: {"stages": result.to_dict()["stages"]} for result in results}


def _row(rows: Rows, stage: StageGini, untrained: StageGini | None) -> tuple[str, ...]:
    return (
        stage_name(stage),
        str(len(stage.layers)),
        f"{stage.rows} {rows}",
        number_text(stage.mean_r2()),
        number_text(stage.mean_r2(null=True)),
        "-" if untrained is None else number_text(untrained.mean_r2()),
        share_text(stage),
        "-" if untrained is None else number_text(untrained.beyond_two_nearest()),
        number_text(stage.beyond_if_flat()),
        left_out_text(stage),
        above_text(stage),
    )


def measure_readings(
    stream: Stream,
    untrained: Stream | None = None,
    *,
    aligned: Align = lambda stages: [],
    rows: Rows = "centred",
    of_untrained: Collection[Rows] = tuple(ROWS_ARE),
    seed: int = 0,
    provenance: Provenance | None = None,
    progress: Progress = lambda about, finished, total: None,
) -> GiniReadings:
    """Collect one network's maps and grow the forests, by the rows asked for and by whole vectors.

    The same of the network without its training, but of these rows only those in `of_untrained`. `aligned` says, when
    the images have passed, of each stage which layers' channel numbers mean the same. `progress` is told
    of which rows how many of the layers are finished.
    """
    kinds: list[Rows] = list(dict.fromkeys([rows, "vector"]))
    given = provenance or Provenance()
    known: list[Aligned | None] = []

    def once(stages: Sequence[StageMaps]) -> list[Aligned | None]:
        known.extend(() if known else aligned(stages))
        return known

    trained = _measured(stream, [GiniCollector(rows=kind, seed=seed) for kind in kinds], given, progress, once)
    if untrained is None:
        return GiniReadings(trained, None)
    quick = [GiniCollector(rows=kind, seed=seed, quick=True) for kind in kinds if kind in of_untrained]

    def told(about: str, *done: int) -> None:
        progress(f"untrained, {about}", *done)

    return GiniReadings(trained, _measured(untrained, quick, given, told, once))


def _measured(
    stream: Stream, collectors: Sequence[GiniCollector], provenance: Provenance, progress: Progress, aligned: Align
) -> dict[Rows, GiniResult]:
    """One pass over the images for all collectors, then the forests of each."""

    def consume(stages: list[StageMaps]) -> None:
        for collector in collectors:
            collector.add(stages)

    def told(rows: Rows) -> Callable[[int, int], None]:
        return lambda finished, total: progress(rows, finished, total)

    stream(consume)
    return {
        each.rows: each.result(
            provenance, told(each.rows), aligned=() if each.rows == "vector" else aligned(each.given)
        )
        for each in collectors
    }
