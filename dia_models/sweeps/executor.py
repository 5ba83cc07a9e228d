"""Train many runs at once on one machine: a process for each share of its cores, or for each GPU."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch

from dia_models.errors import ModelInputError
from dia_models.runs.run import fit
from dia_models.runs.tasks import TaskKind, task_for
from dia_models.training.config import RunConfig
from dia_models.training.device import usable_cores

LOST_IN_A_ROW = 3  # workers that may be lost before any run is finished
POLL_SECONDS = 1.0


@lru_cache(maxsize=1)  # the runs of a sweep share their data
def _parts(task: TaskKind, data: str, image_size: int | None, channels: int, **where: Any) -> Any:
    return task.read(data, image_size, channels, **where)


@dataclass(frozen=True)
class WorkerPlace:
    """Where a worker trains: a device, and the cores that are its own (empty: any)."""

    device: str
    cores: tuple[int, ...] = ()


@dataclass(frozen=True)
class QueuedRun:
    """A run to train or to continue: its directory holds its configuration."""

    directory: Path
    data_dir: Path | None = None
    strict: bool = False

    def attempt(self, device: str) -> str | None:
        """Train it to its end; gives why it failed, as text, which passes between processes where errors may not."""
        try:
            config = RunConfig.read(self.directory)
            task, stream = task_for(config.model), config.recipe.streams
            where = {"data_dir": self.data_dir, "strict": self.strict, "stream": stream}
            parts = _parts(task, config.data, config.image_size, config.channels, **where)
            fit(config, self.directory, torch.device(device), resume=True, parts=parts)
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        return None


def places(device: torch.device, jobs: int | None = None) -> list[WorkerPlace]:
    """Share the machine fairly among `jobs` workers: by default one per GPU, or one per core.

    Raises ModelInputError for more workers than there are cores.
    """
    if device.type != "cpu":
        count = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
        names = [f"cuda:{i}" for i in range(count)] if count > 1 else [str(device)]
        return [WorkerPlace(names[i % len(names)]) for i in range(jobs or len(names))]
    cores = usable_cores()
    jobs = jobs or len(cores)
    if jobs > len(cores):
        raise ModelInputError("jobs", f"{jobs} given, but there are {len(cores)} cores; accepted: 1 to {len(cores)}")
    return [WorkerPlace("cpu", tuple(cores[i::jobs])) for i in range(jobs)]


def train_locally(
    tasks: Iterable[QueuedRun],
    where: Sequence[WorkerPlace],
    tick: Callable[[dict[Path, str]], None] = lambda failed: None,
) -> dict[Path, str]:
    """Train every run; gives the directories of those that failed, with the reason.

    A run that fails does not stop the others. When a worker is lost (killed, out of memory) the runs that were under
    way continue at their last epoch; after three losses without a finished run in between, RuntimeError is raised.
    `tick` is called about every second with what has failed so far.
    """
    waiting, failed, losses = list(tasks), dict[Path, str](), 0
    while waiting:
        before = len(waiting)
        waiting = _one_pool(waiting, where, failed, tick)
        losses = losses + 1 if len(waiting) == before else 1
        if waiting and losses >= LOST_IN_A_ROW:
            raise RuntimeError(
                f"{losses} workers in a row were killed, perhaps because memory ran out; finished epochs are kept: "
                "run the same command again with fewer jobs"
            )
    return failed


def _one_pool(
    tasks: list[QueuedRun],
    where: Sequence[WorkerPlace],
    failed: dict[Path, str],
    tick: Callable[[dict[Path, str]], None],
) -> list[QueuedRun]:
    """Train until all runs have ended or a worker is lost; gives the runs that have not ended."""
    context = multiprocessing.get_context("spawn")
    free: SimpleQueue[WorkerPlace] = context.SimpleQueue()
    for place in where:
        free.put(place)
    lost: list[QueuedRun] = []
    with ProcessPoolExecutor(min(len(where), len(tasks)), context, _settle, (free,)) as pool:
        try:
            running = {pool.submit(_train, task): task for task in tasks}
            while running:
                ended, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                for future in ended:
                    _note_end(future, running.pop(future), failed, lost)
                tick(failed)
        except BaseException:  # an interrupt above all: what the workers have saved is enough to go on
            for worker in multiprocessing.active_children():
                worker.kill()
            raise
    return lost


def _note_end(future: Future[str | None], task: QueuedRun, failed: dict[Path, str], lost: list[QueuedRun]) -> None:
    try:
        reason = future.result()
    except BrokenProcessPool:
        lost.append(task)
    else:
        if reason is not None:
            failed[task.directory] = reason


_place = WorkerPlace("cpu")


def _settle(free: "SimpleQueue[WorkerPlace]") -> None:
    """Take a free place; in each new worker."""
    global _place
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started the workers decides
    _place = free.get()
    if _place.cores:
        torch.set_num_threads(len(_place.cores))
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, _place.cores)


def _leave_with_parent() -> None:
    """Two processes must not train one run: a worker whose parent was killed stops before the next one starts it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(task: QueuedRun) -> str | None:
    return task.attempt(_place.device)
