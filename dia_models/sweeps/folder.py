"""A sweep's runs in a folder: made ready, trained wherever there is room, and what has ended."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dia_models.audit.counting import ParameterCounter
from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.errors import ModelInputError, unknown
from dia_models.factory import task_of
from dia_models.files import write_atomically
from dia_models.runs.result import versions
from dia_models.runs.tasks import task_for
from dia_models.sweeps.executor import QueuedRun, places, train_locally
from dia_models.sweeps.ray_executor import train_on_ray
from dia_models.sweeps.sweep import PlannedRun, Sweep, load_sweep, parse_seeds
from dia_models.training.config import RunConfig
from dia_models.training.device import choose_device
from dia_models.training.files import CONFIG, METRICS, MODEL, RESULT, NotWrittenError
from dia_models.training.recipe import Recipe

EXECUTORS = ("local", "ray")
Tick = Callable[[Mapping[Path, str]], None]
KEPT = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class SweepFolder:
    """The runs of a sweep at a scale, each in a directory below `path`."""

    sweep: Sweep
    scale: str
    runs: list[PlannedRun]
    path: Path

    @classmethod
    def plan(
        cls,
        name: str,
        scale: str = "paper",
        seeds: str | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        out: Path | None = None,
        start_from: Path | None = None,
    ) -> "SweepFolder":
        """Plan the runs of a sweep; nothing is written yet.

        Args:
            name: The sweep's name, or a TOML file of one's own.
            scale: `paper` or `laptop`.
            seeds: Such as `0-4` or `0,7`; by default the scale's.
            settings: Fields of the recipe that override all others.
            out: The folder; by default one in dia-out/.
            start_from: A folder of the checkpoints that the runs start from.

        Raises:
            ModelInputError: For what does not exist and for what cannot be run.
        """
        sweep, changes = load_sweep(name), dict(settings or {})
        for key in changes.keys() - Recipe.model_fields.keys():
            raise unknown("set", key, Recipe.model_fields, listed_by="docs/training.md")
        chosen = range(sweep.scale(scale).seeds) if seeds is None else parse_seeds(seeds)
        runs = sweep.start_from_checkpoints(scale, sweep.runs(scale, chosen, changes), start_from)
        return cls(sweep, scale, runs, out or Path("dia-out") / f"{sweep.name}-{scale}")

    def find_data(self, data_dir: Path | None, *, download: bool = False, strict: bool = False) -> None:
        """Look for the data of the runs that are left, or fetch them, before anything is made."""
        left = [run.config for run in self.runs if not self.has_ended(run)]
        for config in {(config.data, task_of(config.model)): config for config in left}.values():
            where = {"data_dir": data_dir, "download": download, "strict": strict, "stream": config.recipe.streams}
            try:
                task_for(config.model).find(config.data, config.image_size, config.channels, **where)
            except ModelInputError as error:
                raise ModelInputError("data_dir", str(error)) from error  # a sweep says itself which data

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Keep other sweeps out of the folder, and give every run a directory with its configuration.

        Raises ModelInputError if another sweep runs there, and for runs of another configuration.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            with _writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                lock.acquire()
        except Timeout as error:
            message = f"another sweep is running in {self.path}; wait for it or choose another"
            raise ModelInputError("out", message) from error
        try:
            for run in self.runs:
                self._prepare(run)
            yield
        finally:
            lock.release()

    def _prepare(self, run: PlannedRun) -> None:
        directory = self.path / run.directory
        if not (directory / CONFIG).exists():
            with _writing(directory):
                write_atomically(directory / CONFIG, run.config.model_dump_json(indent=2).encode())
        elif RunConfig.read(directory) != run.config:
            raise ModelInputError("out", f"{directory} is a run with another configuration; choose another directory")

    def train(
        self,
        tick: Tick = lambda failed: None,
        *,
        executor: str = "local",
        device: str = "auto",
        jobs: int | None = None,
        data_dir: Path | None = None,
        strict: bool = False,
    ) -> dict[Path, str]:
        """Train every run that has not ended, as `train_locally` or `train_on_ray`; gives what failed, and why."""
        tasks = [QueuedRun(self.path / run.directory, data_dir, strict) for run in self.runs if not self.has_ended(run)]
        if not tasks:
            return {}
        if executor == "ray":
            return train_on_ray(tasks, gpus=device == "cuda", tick=tick)
        return train_locally(tasks, places(choose_device(device), jobs), tick)

    def has_ended(self, run: PlannedRun) -> bool:
        """Whether a run has a result."""
        return (self.path / run.directory / RESULT).exists()

    def score(self, run: PlannedRun) -> float | None:
        """The last network's score of a run that has ended, by the sweep's metric; None if its loss was not finite."""
        document = json.loads((self.path / run.directory / RESULT).read_text())
        finished = document["outcome"] == "finished"
        return (document["last"] or {}).get(f"test_{self.sweep.metric.key}") if finished else None

    def epochs(self, run: PlannedRun) -> list[dict[str, float | None]]:
        """The metrics of every epoch; what is not finite is None."""
        path = self.path / run.directory / METRICS
        if not path.exists():
            return []
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [{key: _finite(row[key]) for key in KEPT if row.get(key)} for row in rows]

    def state(self, run: PlannedRun, failed: Mapping[Path, str]) -> str:
        """How far a run is: its score when it has ended, else its epochs; or that it is among those that `failed`."""
        if self.path / run.directory in failed:
            return "failed"
        if self.has_ended(run):
            score = self.score(run)
            return "nan" if score is None else f"{score:.2%}" if self.sweep.metric.unit else f"{score:.2f}"
        epochs = len(self.epochs(run))
        return f"{epochs}/{run.config.recipe.epochs}" if epochs else "·"

    def to_dict(self) -> dict[str, Any]:
        """The runs that have ended, as the document dia.sweep/1 without what is computed from them."""
        sweep, count = self.sweep, ParameterCounter()
        return {
            "schema": "dia.sweep/1",
            "sweep": sweep.name,
            "title": sweep.title,
            "source": sweep.source,
            "question": sweep.question,
            "scale": self.scale,
            "versus": {name: sweep.versus(self.scale, name) for name in sweep.variants_at(self.scale)},
            "planned": len(self.runs),
            "metric": sweep.metric.model_dump(),
            "runs": [self._ended(run, count) for run in self.runs if self.has_ended(run)],
            "provenance": {
                "command": f"dia-train sweep {sweep.name} --scale {self.scale}",
                "image_size": sweep.scale(self.scale).image_size,
                "recipes": {run.backbone: run.config.recipe.model_dump() for run in self.runs},
                "versions": versions(),
            },
        }

    def _ended(self, run: PlannedRun, count: ParameterCounter) -> dict[str, Any]:
        directory, key = self.path / run.directory, self.sweep.metric.key
        document = json.loads((directory / RESULT).read_text())
        last, best, outcome = document["last"] or {}, document["best"] or {}, document["outcome"]
        checkpoint = Checkpoint.read(str(directory / MODEL))
        return {
            "data": run.data,
            "backbone": run.backbone,
            "variant": run.variant,
            "seed": run.seed,
            "model": run.config.model,
            "options": run.config.options,
            "parameters": count(checkpoint.info.model),
            "sha256": checkpoint.sha256,
            "outcome": outcome,
            "score": last.get(f"test_{key}") if outcome == "finished" else None,
            "best_score": best.get(f"test_{key}") if outcome == "finished" else None,
            "epochs": self.epochs(run),
            "details": last.get(key, {}),
            "machine": document.get("machine") or {},
        }


def check_executor(name: str) -> None:
    """Raise ModelInputError for an unknown executor."""
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise NotWrittenError(f"{path} could not be written: {reason}; choose another folder") from error


def _finite(text: str) -> float | None:
    value = round(float(text), 5)
    return value if abs(value) < float("inf") else None
