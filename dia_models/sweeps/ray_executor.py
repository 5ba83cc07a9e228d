"""Train many runs on a Ray cluster."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dia_models.errors import ModelInputError
from dia_models.sweeps.executor import POLL_SECONDS, QueuedRun

RETRIES = 5  # of a run whose worker or node was lost


def train_on_ray(
    tasks: Sequence[QueuedRun], *, gpus: bool, tick: Callable[[dict[Path, str]], None] = lambda failed: None
) -> dict[Path, str]:
    """As `train_locally`, on the Ray cluster that this machine belongs to: one core, or one GPU if `gpus`, for a run.

    The runs' directories and the data must be at the same paths on every node. A run whose node is lost continues on
    another one, at its last epoch. Raises ModelInputError if Ray is not installed or no cluster is running.
    """
    ray = _cluster()
    train = ray.remote(num_cpus=1, num_gpus=int(gpus), max_retries=RETRIES)(_train)
    device = "cuda" if gpus else "cpu"
    running = {train.remote(_everywhere(task), device): task for task in tasks}
    failed: dict[Path, str] = {}
    while running:
        ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
        for reference in ended:
            task = running.pop(reference)
            if (reason := _reason(ray, reference)) is not None:
                failed[task.directory] = reason
        tick(failed)
    ray.shutdown()
    return failed


def _cluster() -> Any:  # the package ray, which is optional
    try:
        import ray
    except ImportError as error:
        raise ModelInputError("executor", "ray is not installed; pip install 'dia-analysis[cluster]'") from error
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ModelInputError("executor", "no Ray cluster is running here; start one: ray start --head") from error
    return ray


def _everywhere(task: QueuedRun) -> QueuedRun:
    data_dir = None if task.data_dir is None else task.data_dir.absolute()
    return replace(task, directory=task.directory.absolute(), data_dir=data_dir)


def _reason(ray: Any, reference: Any) -> str | None:
    try:
        reason: str | None = ray.get(reference)
    except ray.exceptions.RayError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return reason


def _train(task: QueuedRun, device: str) -> str | None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return task.attempt(device)
