"""What a sweep found: the scores of its runs, and whether the variants differ by more than chance."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import isnan, nan
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from dia_analysis.errors import AnalysisInputError
from dia_analysis.paper.printed import paper_accuracy
from dia_analysis.results.base import Result
from dia_analysis.statistics.significance import ALPHA, Difference, Spread, difference, fisher, holm, spread

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

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
        return (" in percent" if self.unit else "") + ("" if self.higher_is_better else " (lower is better)")

    def in_unit(self, scores: Iterable[float | None]) -> list[float]:
        """Those that there are, in the metric's unit."""
        factor = 100 if self.unit == "percent" else 1
        return [factor * score for score in scores if score is not None]


@dataclass(frozen=True)
class TrainedRun:
    """A run that has ended. `score` is the last epoch's network's by the sweep's metric, None if the loss was not
    finite (outcome `nan`); `best_score` that of the epoch that was best on validation images.

    `epochs` has a row for each epoch: train_loss, train_accuracy and, with validation images, val_loss, val_accuracy.
    `details` say what the score depends on, where that is more than the test images; `machine` the precision, the
    processor and so on that the run used, empty if that was not recorded.
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
    machine: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """The runs of one variant of a backbone on one set of data; scores in the metric's unit.

    `difference` is to the variant `versus`. Where runs of either exploded, or the paper prints that they do, the
    comparison is of their counts, by `exact_p`, Fisher's; else of scores, by Welch's p. `holm_p` is this p corrected
    for all `tests` of the sweep, `simultaneous_interval` that of the difference which holds for all of them together
    (Bonferroni), and `smallest_difference` the one that could have been seen: with 80 % power, at the strictest of
    Holm's steps, at the standard deviation of these runs. NaN where not defined.
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
    exact_p: float = nan
    holm_p: float = nan
    tests: int = 0
    simultaneous_interval: tuple[float, float] = (nan, nan)
    smallest_difference: float = nan

    @property
    def runs(self) -> int:
        """All of them, exploded or not."""
        return self.score.runs + self.nan_runs

    @property
    def p(self) -> float:
        """That of the test which this comparison is by."""
        welch = nan if self.difference is None else self.difference.welch_p
        return welch if isnan(self.exact_p) else self.exact_p


@dataclass(frozen=True, repr=False)
class SweepResult(Result):
    """The runs of a sweep that have ended, of `planned`.

    `versus` says for each variant, in the order of the table, which it is compared with. `provenance` has the recipe
    of each backbone, the command and the versions.
    """

    file = "sweep"
    name: str
    title: str
    source: str
    question: str
    scale: str
    versus: Mapping[str, str | None]
    planned: int
    runs: tuple[TrainedRun, ...]
    provenance: Mapping[str, Any]  # type: ignore[assignment]
    metric: Metric = Metric()

    def summary(self) -> str:
        """The table with the paper's numbers beside."""
        from dia_analysis.paper.tables import text

        return text(self, 120).rstrip()

    def about(self) -> Mapping[str, Any]:
        """The sweep, and where its runs come from."""
        return {"sweep": self.name, "scale": self.scale, **self.provenance}

    def datasets(self) -> "dict[str, xr.Dataset]":
        """By run: what it is, its score and the best epoch's in the metric's unit, NaN if its loss was not finite."""
        import xarray as xr

        names = ("data", "backbone", "variant", "seed", "parameters", "outcome")
        arrays: dict[str, Any] = {name: ("run", [getattr(run, name) for run in self.runs]) for name in names}
        for name in ("score", "best_score"):
            scores = [self.metric.in_unit([getattr(run, name)]) for run in self.runs]
            arrays[name] = ("run", [score[0] if score else nan for score in scores])
        return {self.file: xr.Dataset(arrays, coords={"run": range(len(self.runs))})}

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each run, with the same columns."""
        return self.datasets()[self.file].to_dataframe().reset_index()

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The scores of the variants' runs, for each backbone on each set of data."""
        return [partial(self._draw, place=place) for place in dict.fromkeys((r.data, r.backbone) for r in self.runs)]

    def _draw(self, ax: "Axes", place: tuple[str, str]) -> None:
        cells = [cell for cell in self.cells() if (cell.data, cell.backbone) == place]
        for number, cell in enumerate(cells):
            runs = [r.score for r in self.runs if (r.data, r.backbone, r.variant) == (*place, cell.variant)]
            scores = self.metric.in_unit(runs)
            ax.plot(scores, [number] * len(scores), ".", color="0.6")
            ax.errorbar(cell.score.mean, number, xerr=cell.score.std, fmt="o", ms=4, capsize=2, color="C0")
        ax.set(yticks=range(len(cells)), yticklabels=[cell.variant for cell in cells], title=" ".join(place))
        ax.set_xlabel(f"Test {self.metric.words}{self.metric.reading}")
        ax.invert_yaxis()

    def cells(self) -> list[Cell]:
        """One for every variant, backbone and data that has a run."""
        groups: dict[tuple[str, str], list[TrainedRun]] = {}
        for run in self.runs:
            groups.setdefault((run.data, run.backbone), []).append(run)
        cells = [cell for runs in groups.values() for cell in self._group(runs)]
        p = [cell.p for cell in cells]
        tests = sum(not isnan(value) for value in p)
        return [_among(cell, tests, corrected) for cell, corrected in zip(cells, holm(p), strict=True)]

    def _group(self, runs: list[TrainedRun]) -> Iterable[Cell]:
        by_variant = {name: [r for r in runs if r.variant == name] for name in self.versus}
        for name, own in by_variant.items():
            if own:
                against = self.versus[name]
                other = [] if against is None else by_variant[against]
                cell = _cell(own, against, other, self.metric)
                counted = against is not None and (_exploded(own) or _exploded(other) or self._nan_in_paper(cell))
                yield replace(cell, exact_p=_exact(own, other)) if counted else cell

    def _nan_in_paper(self, cell: Cell) -> bool:
        """Whether the paper prints nan for one of the two that are compared, and a number for the other."""
        pair = [paper_accuracy(self.name, cell.data, cell.backbone, name) for name in (cell.variant, cell.versus)]
        return sum(p is not None and p.accuracy is None for p in pair) == 1

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
        applies = {key: value for key, value in fields.items() if key not in ("details", "machine") or value}
        return {names.get(key, key): _plain(value) for key, value in applies.items()}

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


def _cell(runs: list[TrainedRun], against: str | None, others: list[TrainedRun], metric: Metric) -> Cell:
    first, scores = runs[0], metric.in_unit(run.score for run in runs)
    other = metric.in_unit(run.score for run in others)
    return Cell(
        first.data,
        first.backbone,
        first.variant,
        against,
        first.parameters,
        spread(scores),
        spread(metric.in_unit(run.best_score for run in runs)),
        _exploded(runs),
        difference(scores, other) if scores and other else None,
    )


def _among(cell: Cell, tests: int, holm_p: float) -> Cell:
    """A cell as one of so many tests."""
    if isnan(cell.p):
        return replace(cell, tests=tests)
    own = replace(cell, tests=tests, holm_p=holm_p)
    if cell.difference is None or not isnan(cell.exact_p):
        return own
    interval, smallest = cell.difference.interval(ALPHA / tests), cell.difference.smallest_seen(ALPHA / tests)
    return replace(own, simultaneous_interval=interval, smallest_difference=smallest)


def _exploded(runs: list[TrainedRun]) -> int:
    return sum(run.outcome == "nan" for run in runs)


def _exact(own: list[TrainedRun], other: list[TrainedRun]) -> float:
    return fisher(_exploded(own), len(own), _exploded(other), len(other))


def _names(metric: Metric) -> dict[str, str]:
    """What the document calls a run's scores."""
    return {"score": metric.key, "best_score": f"best_{metric.key}"}


def spread_text(scores: Spread) -> str:
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
