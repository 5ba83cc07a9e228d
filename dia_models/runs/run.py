"""Training runs: one directory each, started, resumed after any interruption, and finished."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dia_models.errors import ModelInputError
from dia_models.runs.result import RunResult
from dia_models.runs.tasks import task_for
from dia_models.training.config import RunConfig
from dia_models.training.distributed import process_group, rank_zero_first
from dia_models.training.files import EPOCH_FILE, LOCK, alone, leftover

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


def fit(
    config: RunConfig,
    directory: Path,
    device: torch.device,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    strict: bool = False,
    resume: bool = False,
    callbacks: "Iterable[Callback]" = (),
    parts: Any = None,
) -> RunResult:
    """Train a network, test it once, and leave its checkpoints in `directory`; `dia_models.runs.tasks` says for what.

    A new run needs a directory that does not exist or is empty; `resume` continues one at the last epoch that
    was completed, to the same weights as without the interruption on the same machine, and gives the result again of
    one that is finished. An image that cannot be read is left out with a warning, or an error if `strict`; `download`
    fetches data that are missing. `config.start_from` names a checkpoint whose weights to start from. With
    `config.keep_every` the network is also kept before training and after every so many epochs (`kept_epochs`). `parts`
    are the data if the task's `read` has read them already. `callbacks` are Lightning's,
    looked at when the data are there.

    A loss that becomes infinite or not a number ends the run with the outcome "nan". Under `torchrun` the processes
    share each batch; the first one writes.

    Raises ModelInputError for a directory in use or being written by another process, for a run of another
    configuration, and for a checkpoint of another network; NotWrittenError if the disk is full.
    """
    task = task_for(config.model)
    with process_group(device) as where, ExitStack() as held:
        _check(directory, config, resume)
        if resume and (finished := RunResult.read(directory, config)):
            return finished
        held.enter_context(alone(directory))
        _check(directory, config, resume)  # once more, now that no other process writes there
        with rank_zero_first():  # none writes before all have looked into the directory
            parts = parts or task.read(
                config.data,
                config.image_size,
                config.channels,
                data_dir=data_dir,
                download=download,
                strict=strict,
                stream=config.recipe.streams,
            )
        from dia_models.runs.training_run import TrainingRun  # late: Lightning takes seconds to import

        run = TrainingRun(config, directory, where, task.plan(config, parts))
        return run.finish(*run.train(run.start(), resume, tuple(callbacks)))


def _check(directory: Path, config: RunConfig, resume: bool) -> None:
    if resume:
        started = RunConfig.read(directory)
        if started != config:
            changed = [k for k in RunConfig.model_fields if getattr(started, k) != getattr(config, k)]
            raise ModelInputError(
                "resume",
                f"{directory} is a run with another {', '.join(changed)}; leave these options out to resume it",
            )
    elif directory.exists() and (not directory.is_dir() or any(map(_foreign, directory.iterdir()))):
        raise ModelInputError(
            "out", f"{directory} exists and is not empty; choose another directory, or resume the run in it"
        )


def _foreign(path: Path) -> bool:
    return path.name != LOCK and not leftover(path)


def kept_epochs(directory: Path) -> list[Path]:
    """The checkpoints that a run with `keep_every` kept, by epoch. Raises ModelInputError if there is none."""
    paths = directory.glob(EPOCH_FILE.replace("{:04d}", "*"))
    if kept := sorted(paths, key=lambda path: (len(path.name), path.name)):
        return kept
    raise ModelInputError(
        "run", f"{directory} keeps no epochs; train with dia-train fit --keep-every 1 --out {directory}"
    )
