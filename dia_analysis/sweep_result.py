"""What a sweep found: the scores of its runs, and whether the variants differ by more than chance."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isnan, nan
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from dia_analysis.errors import AnalysisInputError
from dia_analysis.significance import Difference, Spread, difference, holm, spread

SCHEMA = "dia.sweep/1"
Outcome = Literal["finished", "nan"]
Unit = Literal["percent", ""]


@dataclass(frozen=True)
class Metric:
    """What the runs of a sweep are compared by: its key in a run's result (after `test_`), and its name in words.

    A fraction whose unit is percent is given times 100.
    """

    key: str = "accuracy"
    words: str = "accuracy"
    unit: Unit = "percent"
    higher_is_better: bool = True

    @property
    def reading(self) -> str:
        """How to read its values."""
        return (" in percent" if self.unit else "") + ("" if self.higher_is_better else " (less is better)")

    def shown(self, scores: Iterable[float | None]) -> list[float]:
        """Those that there are, in the metric's unit."""
        factor = 100 if self.unit == "percent" else 1
        return [factor * score for score in scores if score is not None]


@dataclass(frozen=True)
class TrainedRun:
    """A run that has ended. `score` is the last epoch's network's by the sweep's metric, None if the loss was not
    finite (outcome `nan`); `best_score` that of the epoch that was best on validation images.

    `epochs` has a row for each epoch: train_loss, train_accuracy and, with validation images, val_loss, val_accuracy.
    `details` say what the score depends on, where that is more than the test images.
    """

    data: str
    backbone: str
    variant: str
    seed: int
    model: str
    options: Mapping[str, Any]
    parameters: int
    sha256: str
    outcome: Outcome
    score: float | None
    best_score: float | None
    epochs: tuple[Mapping[str, float | None], ...]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """The runs of one variant of a backbone on one set of data; scores in the metric's unit.

    `difference` is to the variant `versus`, and `holm_p` its Welch p corrected for all comparisons of the sweep.
    """

    data: str
    backbone: str
    variant: str
    versus: str | None
    parameters: int
    score: Spread
    best_score: Spread
    nan_runs: int
    difference: Difference | None
    holm_p: float


@dataclass(frozen=True)
class SweepResult:
    """The runs of a sweep that have ended, of `planned`.

    `versus` says for each variant, in the order of the table, which it is compared with. `provenance` has the recipe
    of each backbone, the command and the versions.
    """

    name: str
    title: str
    source: str
    question: str
    scale: str
    versus: Mapping[str, str | None]
    planned: int
    runs: tuple[TrainedRun, ...]
    provenance: Mapping[str, Any]
    metric: Metric = Metric()

    def cells(self) -> list[Cell]:
        """One for every variant, backbone and data that has a run."""
        groups: dict[tuple[str, str], list[TrainedRun]] = {}
        for run in self.runs:
            groups.setdefault((run.data, run.backbone), []).append(run)
        cells = [cell for runs in groups.values() for cell in self._group(runs)]
        corrected = holm([nan if c.difference is None else c.difference.welch_p for c in cells])
        return [replace(cell, holm_p=p) for cell, p in zip(cells, corrected, strict=True)]

    def _group(self, runs: list[TrainedRun]) -> Iterable[Cell]:
        by_variant = {name: [r for r in runs if r.variant == name] for name in self.versus}
        for name, own in by_variant.items():
            if own:
                against = self.versus[name]
                other = [] if against is None else self.metric.shown(r.score for r in by_variant[against])
                yield _cell(own, against, other, self.metric)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.sweep/1; what is not defined is null."""
        head = {key: getattr(self, key) for key in ("title", "source", "question", "scale", "planned")}
        return {
            "schema": SCHEMA,
            "sweep": self.name,
            **head,
            "versus": dict(self.versus),
            **({} if self.metric == Metric() else {"metric": asdict(self.metric)}),
            "cells": [self._named(asdict(cell)) for cell in self.cells()],
            "runs": [self._named(asdict(run)) for run in self.runs],
            "provenance": dict(self.provenance),
        }

    def _named(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """With the metric's key for `score`, and without what is empty because it does not apply."""
        names = _names(self.metric)
        return {names.get(key, key): _plain(value) for key, value in fields.items() if key != "details" or value}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "SweepResult":
        """Read `to_dict`'s document; everything but the runs is computed again. Raises AnalysisInputError."""
        try:
            if document["schema"] != SCHEMA:
                raise AnalysisInputError("runs", f"schema {document['schema']!r} given; accepted: {SCHEMA}")
            metric = TypeAdapter(Metric).validate_python(document.get("metric", {}))
            names = {given: name for name, given in _names(metric).items()}
            fields = [{names.get(key, key): value for key, value in run.items()} for run in document["runs"]]
            runs = TypeAdapter(tuple[TrainedRun, ...]).validate_python(fields)
            head = {key: document[key] for key in ("title", "source", "question", "scale", "versus", "planned")}
            return cls(name=document["sweep"], runs=runs, provenance=document["provenance"], metric=metric, **head)
        except (KeyError, TypeError, AttributeError) as error:
            raise AnalysisInputError("runs", f"this is no result of a sweep: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise AnalysisInputError("runs", f"this is no result of a sweep: runs.{place}: {first['msg']}") from error

    def rows(self) -> list[tuple[str, ...]]:
        """The table as text, its first row the names of the columns."""
        head = ("data", "backbone", "variant", "parameters", "runs", self.metric.words, "best on validation",
                "difference", "against", "t-test p", "Welch p", "Holm p", "Hedges g")  # fmt: skip
        return [head, *(_row(cell) for cell in self.cells())]

    def summary(self) -> str:
        """The table in aligned columns, and how to read it."""
        rows = self.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(0, f"{self.title} ({self.source}, {self.scale} scale): {len(self.runs)} of {self.planned} runs")
        return "\n".join(
            [*lines, f"Test {self.metric.words}{self.metric.reading}, mean ± standard deviation over seeds."]
        )


def _cell(runs: list[TrainedRun], against: str | None, other: list[float], metric: Metric) -> Cell:
    first, scores = runs[0], metric.shown(run.score for run in runs)
    return Cell(
        first.data,
        first.backbone,
        first.variant,
        against,
        first.parameters,
        spread(scores),
        spread(metric.shown(run.best_score for run in runs)),
        sum(run.outcome == "nan" for run in runs),
        difference(scores, other) if scores and other else None,
        nan,
    )


def _names(metric: Metric) -> dict[str, str]:
    """What the document calls a run's scores."""
    return {"score": metric.key, "best_score": f"best_{metric.key}"}


def _row(cell: Cell) -> tuple[str, ...]:
    runs = str(cell.score.runs + cell.nan_runs) + (f" ({cell.nan_runs} nan)" if cell.nan_runs else "")
    own = (cell.data, cell.backbone, cell.variant, f"{cell.parameters:,}", runs)
    scores = (shown(cell.score), shown(cell.best_score))
    if cell.difference is None:
        return (*own, *scores, *("" for _ in range(6)))
    d = cell.difference
    numbers = ("–" if isnan(p) else f"{p:.3g}" for p in (d.t_p, d.welch_p, cell.holm_p, d.hedges_g))
    return (*own, *scores, f"{d.value:+.2f}", str(cell.versus), *numbers)


def shown(scores: Spread) -> str:
    """Mean ± standard deviation; `nan` if no run has a score."""
    if not scores.runs:
        return "nan"
    return f"{scores.mean:.2f}" + ("" if isnan(scores.std) else f" ± {scores.std:.2f}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and isnan(value) else value
