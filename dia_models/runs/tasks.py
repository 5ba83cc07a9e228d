"""What networks are trained for: the few things that differ between the tasks, chosen by the network's name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import nn

from dia_models.backbones.registry import Task
from dia_models.data import Preprocessing
from dia_models.detection.read_scenes import read_scenes
from dia_models.factory import task_of
from dia_models.spec import Network
from dia_models.training.config import RunConfig
from dia_models.training.read_images import find_images, read_classes, read_images

if TYPE_CHECKING:  # Lightning takes seconds to import, and data that are not there shall be told before
    import lightning as L

    from dia_models.training.module import Training
    from dia_models.training.scores import Measured


@runtime_checkable
class Job(Protocol):
    """One run's data and what is made of them.

    `classes` and `preprocessing` go into the checkpoints' header. `best_by` is the metric that tells the best epoch
    (see `dia_models.training.callbacks.BestEpoch`), None if nothing is held out for validation.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def preprocessing(self) -> Preprocessing: ...  # noqa: D102
    @property
    def best_by(self) -> str | None: ...  # noqa: D102

    def build(self) -> Network:
        """The network with random weights, drawn from torch's global generator."""

    def training(self, model: Network) -> "Training":
        """The Lightning module that trains it."""

    def data(self) -> "L.LightningDataModule":
        """The batches, which depend on nothing but the seed and the epoch; `len(batch[1])` is a batch's images."""

    def test(self, model: nn.Module, device: torch.device) -> "Measured":
        """What is measured at the end, by the best network and the last one."""

    def undefined_scores(self) -> "Measured":
        """The same of a network whose loss was not finite."""


@dataclass(frozen=True)
class TaskKind:
    """How the data of a task are read, which the runs of a sweep share, and how a run's job is made of them.

    `find` takes what `read` takes and raises ModelInputError if the data are not there, without decoding images.
    """

    find: Callable[..., Any]
    read: Callable[..., Any]
    plan: Callable[[RunConfig, Any], Job]


def _classification(config: RunConfig, parts: Any) -> Job:
    from dia_models.classification.training import Classification

    return Classification.plan(config, parts)


def _detection(config: RunConfig, parts: Any) -> Job:
    from dia_models.detection.training import Detection

    return Detection.plan(config, parts)


def _noise_prediction(config: RunConfig, parts: Any) -> Job:
    from dia_models.generation.training import NoisePrediction

    return NoisePrediction.plan(config, parts)


TASKS: Mapping[Task, TaskKind] = {
    "classification": TaskKind(find_images, read_classes, _classification),
    "detection": TaskKind(read_scenes, read_scenes, _detection),
    "noise prediction": TaskKind(find_images, read_images, _noise_prediction),
}


def task_for(model: str) -> TaskKind:
    """What a network of this name is trained for. Raises ModelInputError for an unknown name."""
    return TASKS[task_of(model)]
