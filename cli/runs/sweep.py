"""dia-train sweep."""

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cli.common.console import note, say, say_json, terminal_width
from cli.common.publish import check_one_process
from cli.common.settings import parse_setting
from dia_analysis.errors import AnalysisInputError
from dia_analysis.paper.sweeps import Metric, SweepResult, TrainedRun
from dia_analysis.results.output import writing
from dia_analysis.results.words import quantity
from dia_models import ModelInputError
from dia_models.audit.counting import ParameterCounter
from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.errors import unknown
from dia_models.factory import task_of
from dia_models.files import write_atomically
from dia_models.runs.run import MODEL, RunConfig, versions
from dia_models.runs.tasks import task_for
from dia_models.sweeps.executor import Task, places, train_locally
from dia_models.sweeps.ray_executor import train_on_ray
from dia_models.sweeps.sweep import PlannedRun, Sweep, load_sweep, parse_seeds
from dia_models.training.device import choose_device
from dia_models.training.files import CONFIG, METRICS, RESULT
from dia_models.training.recipe import Recipe

SUMMARY = "sweep.json"
EXECUTORS = ("local", "ray")


def sweep(
    name: str,
    scale: str,
    seeds: str | None,
    changes: list[str],
    *,
    out: Path | None,
    jobs: int | None,
    executor: str,
    start_from: Path | None,
    data_dir: Path | None,
    download: bool,
    strict: bool,
    device: str,
    as_json: bool,
) -> None:
    """Train every run of a sweep that is not finished, and compare the variants."""
    check_one_process()
    plan = load_sweep(name)
    chosen = list(range(plan.scale(scale).seeds)) if seeds is None else parse_seeds(seeds)
    runs = plan.started(scale, plan.runs(scale, chosen, _recipe_changes(changes)), start_from)
    out = out or Path("dia-out") / f"{plan.name}-{scale}"
    if executor not in EXECUTORS:
        raise unknown("executor", executor, EXECUTORS)
    _find_data([run for run in runs if not (out / run.directory / RESULT).exists()], data_dir, download, strict)
    with _alone(out):
        for run in runs:
            _prepare(run, out)
        board = Board(plan, scale, runs, out)
        open_runs = [
            Task(out / r.directory, data_dir, strict) for r in runs if not (out / r.directory / RESULT).exists()
        ]
        try:
            failed = _train(open_runs, executor, device, jobs, board)
        finally:
            board.stop()
            result = collect(plan, scale, runs, out)
            lost = _keep(result, out)
    if as_json:
        say_json(result.to_dict())
    else:
        from figures import tables

        say(tables.text(result, terminal_width()).rstrip())
    if lost is not None:
        raise lost
    note(f"written to {out / SUMMARY}")
    if failed:
        for directory, reason in failed.items():
            note(f"failed: {directory.name}: {reason}")
        raise ModelInputError(
            "sweep", f"{quantity(len(failed), 'run')} failed, as said above; the others are kept in {out}"
        )
    note(f"beside the paper's numbers: dia-analyze tables --runs {out}")


def _train(tasks: list[Task], executor: str, device: str, jobs: int | None, board: "Board") -> dict[Path, str]:
    if not tasks:
        return {}
    if executor == "ray":
        return train_on_ray(tasks, gpus=device == "cuda", tick=board)
    return train_locally(tasks, places(choose_device(device), jobs), board)


def _recipe_changes(changes: list[str]) -> dict[str, Any]:
    values = dict(parse_setting(change) for change in changes)
    for key in values:
        if key not in Recipe.model_fields:
            raise unknown("set", key, Recipe.model_fields, listed_by="docs/training.md")
    return values


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    lock = FileLock(out / ".lock", timeout=0)
    try:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout as error:
        raise ModelInputError("out", f"another sweep is running in {out}; wait for it or choose another") from error
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"what is trained is kept in {out}; run the same command again to continue"
        ) from interrupt
    finally:
        lock.release()


def _keep(result: SweepResult, out: Path) -> AnalysisInputError | None:
    """Write the result; gives the error if it cannot be written, so that it is printed first."""
    try:
        with writing(out / SUMMARY):
            write_atomically(out / SUMMARY, json.dumps(result.to_dict(), indent=1).encode())
    except AnalysisInputError as error:
        return error
    return None


def _prepare(run: PlannedRun, out: Path) -> None:
    """Put the run's configuration into its directory, unless it is there."""
    directory = out / run.directory
    if not (directory / CONFIG).exists():
        with writing(directory):
            write_atomically(directory / CONFIG, run.config.model_dump_json(indent=2).encode())
    elif RunConfig.read(directory) != run.config:
        raise ModelInputError("out", f"{directory} is a run with another configuration; choose another directory")


def _find_data(runs: list[PlannedRun], data_dir: Path | None, download: bool, strict: bool) -> None:
    """Look for the data of these runs, or fetch them, before anything is made for a run."""
    configs = {(config.data, task_of(config.model)): config for config in (run.config for run in runs)}
    for config in configs.values():
        find = task_for(config.model).find
        where = {"data_dir": data_dir, "download": download, "strict": strict, "stream": config.recipe.streams}
        try:
            find(config.data, config.image_size, config.channels, **where)
        except ModelInputError as error:
            raise ModelInputError("data_dir", str(error)) from error  # a sweep says itself which data


def collect(plan: Sweep, scale: str, runs: list[PlannedRun], out: Path) -> SweepResult:
    """The runs that have ended."""
    count, metric = ParameterCounter(), Metric(**plan.metric.model_dump())
    ended = [_ended(run, out / run.directory, count, metric) for run in runs if (out / run.directory / RESULT).exists()]
    recipes = {run.backbone: run.config.recipe.model_dump() for run in runs}
    return SweepResult(
        name=plan.name,
        title=plan.title,
        source=plan.source,
        question=plan.question,
        scale=scale,
        versus={name: plan.versus(scale, name) for name in plan.variants_at(scale)},
        planned=len(runs),
        runs=tuple(ended),
        provenance={
            "command": f"dia-train sweep {plan.name} --scale {scale}",
            "image_size": plan.scale(scale).image_size,
            "recipes": recipes,
            "versions": versions(),
        },
        metric=metric,
    )


def _ended(run: PlannedRun, directory: Path, count: ParameterCounter, metric: Metric) -> TrainedRun:
    document = json.loads((directory / RESULT).read_text())
    last, best, outcome = document["last"] or {}, document["best"] or {}, document["outcome"]
    checkpoint = Checkpoint.read(str(directory / MODEL))
    return TrainedRun(
        data=run.data,
        backbone=run.backbone,
        variant=run.variant,
        seed=run.seed,
        model=run.config.model,
        options=run.config.options,
        parameters=count(checkpoint.info.model),
        sha256=checkpoint.sha256,
        outcome=outcome,
        score=last.get(f"test_{metric.key}") if outcome == "finished" else None,
        best_score=best.get(f"test_{metric.key}") if outcome == "finished" else None,
        epochs=tuple(_epochs(directory)),
        details=last.get(metric.key, {}),
        machine=document.get("machine") or {},
    )


def _epochs(directory: Path) -> list[dict[str, float | None]]:
    """The metrics of every epoch; what is not finite is None."""
    if not (directory / METRICS).exists():
        return []
    with (directory / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    return [{key: _finite(row[key]) for key in kept if row.get(key)} for row in rows]


def _finite(text: str) -> float | None:
    value = round(float(text), 5)
    return value if abs(value) < float("inf") else None


class Board:
    """A live table on a terminal, of how far every run is; elsewhere a line for every run that ends."""

    def __init__(self, plan: Sweep, scale: str, runs: list[PlannedRun], out: Path):
        self.plan, self.scale, self.runs, self.out = plan, scale, runs, out
        self.told = {run.directory for run in runs if (out / run.directory / RESULT).exists()}
        if self.told:
            note(f"{len(self.told)} of {len(runs)} runs are finished already")
        console = Console(stderr=True)
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        if self.live is not None:
            self.live.start()

    def __call__(self, failed: Mapping[Path, str]) -> None:
        """Show what has changed."""
        if self.live is not None:
            self.live.update(self._table(failed), refresh=True)
            return
        for run in self.runs:
            if run.directory not in self.told and (self.out / run.directory / RESULT).exists():
                self.told.add(run.directory)
                note(f"{len(self.told)}/{len(self.runs)} {run.directory}: {self._state(run, failed)}")

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self.live is not None:
            self.live.stop()

    def _table(self, failed: Mapping[Path, str]) -> Table:
        seeds = list(dict.fromkeys(run.seed for run in self.runs))
        table = Table("data", "backbone", "variant", *(f"seed {seed}" for seed in seeds), title=self.plan.title)
        cells: dict[tuple[str, str, str], list[str]] = {}
        for run in self.runs:
            cells.setdefault((run.data, run.backbone, run.variant), []).append(self._state(run, failed))
        for place, states in cells.items():
            table.add_row(*place, *states)
        return table

    def _state(self, run: PlannedRun, failed: Mapping[Path, str]) -> str:
        directory = self.out / run.directory
        if directory in failed:
            return "failed"
        if (directory / RESULT).exists():
            document = json.loads((directory / RESULT).read_text())
            score = document["last"].get(f"test_{self.plan.metric.key}")
            if document["outcome"] == "nan" or score is None:
                return "nan"
            return f"{score:.2%}" if self.plan.metric.unit else f"{score:.2f}"
        epochs = len(_epochs(directory))
        return f"{epochs}/{run.config.recipe.epochs}" if epochs else "·"
