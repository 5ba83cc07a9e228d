"""What a run comes to."""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal

import torch

from dia_models.training.config import RunConfig
from dia_models.training.files import RESULT, save
from dia_models.training.machine import Machine, in_words
from dia_models.training.scores import Evaluation, Measured, Scores


@dataclass(frozen=True)
class RunResult:
    """A finished run: test scores of the last epoch's network and of the best one on the validation images.

    A run whose loss became infinite or not a number has the outcome "nan" and the epoch, from 1, in which it did; the
    scores of its last network are undefined (nan), and `best` is that of the epochs before. `machine` is what finished
    it, and `training_seconds` the time of all its epochs; runs of older versions say neither.
    """

    directory: Path
    config: RunConfig
    last: Measured
    best: Measured | None
    nan_epoch: int | None = None
    machine: Machine | None = None
    training_seconds: float | None = None

    @property
    def outcome(self) -> Literal["finished", "nan"]:
        """How the run ended."""
        return "finished" if self.nan_epoch is None else "nan"

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.fit/1. A score that is not finite is null."""
        return {
            "schema": "dia.fit/1",
            "directory": str(self.directory),
            "model": self.config.model,
            "data": self.config.data,
            "seed": self.config.seed,
            "outcome": self.outcome,
            "nan_epoch": self.nan_epoch,
            "images": self.last.images,
            "last": _document(self.last),
            "best": None if self.best is None else _document(self.best),
            "machine": None if self.machine is None else self.machine.model_dump(),
            "training_seconds": self.training_seconds,
            "versions": versions(),
        }

    def summary(self) -> str:
        """The scores of the last network and the best one, and how long it took; or why it stopped."""
        config = self.config
        if self.outcome == "nan":
            return (
                f"{config.model} on {config.data}: training stopped in epoch {self.nan_epoch}: the loss is NaN or "
                "infinite. A lower learning rate or clipping (clip=1) may help."
            )
        lines = [f"{config.model} on {self.last.images} test images of {config.data}"]
        lines.append(f"  after the last epoch:      {_in_words(self.last)}")
        if self.best is not None:
            lines.append(f"  best on validation images: {_in_words(self.best)}")
        time = "" if self.training_seconds is None else f", {self.training_seconds:.0f} s"
        return "\n".join([*lines, f"  precision in training: {in_words(self.machine)}{time}"])

    def save(self) -> None:
        """Write result.json. Raises NotWrittenError."""
        save(self.directory / RESULT, json.dumps(self.to_dict(), indent=2, allow_nan=False).encode())

    @classmethod
    def read(cls, directory: Path, config: RunConfig) -> "RunResult | None":
        """The result of a run, or None if it is not finished."""
        path = directory / RESULT
        if not path.exists():
            return None
        document = json.loads(path.read_bytes())
        images, best, machine = document["images"], document["best"], document.get("machine")
        return cls(
            directory,
            config,
            _parse_scores(images, document["last"]),
            None if best is None else _parse_scores(images, best),
            document.get("nan_epoch"),
            None if machine is None else Machine.model_validate(machine),
            document.get("training_seconds"),
        )


def _in_words(measured: Measured) -> str:
    """The scores; accuracies are percentages."""
    forms = {"test_accuracy": ".2%"}
    scores = measured.scores.items()
    return ", ".join(f"{name.removeprefix('test_')} {value:{forms.get(name, '.3f')}}" for name, value in scores)


def _document(measured: Measured) -> dict[str, Any]:
    document: dict[str, Any] = {name: score if isfinite(score) else None for name, score in measured.scores.items()}
    if isinstance(measured, Evaluation):
        return {**document, "per_class_accuracy": list(measured.per_class_accuracy)}
    return document | measured.details


def _parse_scores(images: int, document: dict[str, Any]) -> Measured:
    scores = {name: nan if score is None else score for name, score in document.items() if name.startswith("test_")}
    if "test_accuracy" not in scores:
        return Scores(images, scores, {name: value for name, value in document.items() if name not in scores})
    per_class = tuple(document.get("per_class_accuracy", ()))
    return Evaluation(images, scores["test_accuracy"], per_class, scores["test_loss"])


def versions() -> dict[str, str]:
    """The versions of what the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": version("lightning"),
        "dia-analysis": version("dia-analysis"),
    }
