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
from dia_models.training.files import EPOCH_FILE, LOCK, leftover, lock_directory

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
    """Train a network, test it once, and leave its checkpoints in a directory.

    A loss that becomes infinite or not a number ends the run with the outcome "nan". Under `torchrun` the processes
    share each batch; the first one writes.

    Args:
        config: The network, the data and the recipe; `load_recipe` reads one by name.
        directory: A directory that does not exist or is empty, or with `resume` that of the run.
        device: Where to compute.
        data_dir: Where data sets are; by default `$DIA_DATA_DIR`, else the user's cache folder.
        download: Fetch data that are missing.
        strict: Whether an image that cannot be read is an error; else it is left out with a warning.
        resume: Continue a run at the last completed epoch, on the same machine to the same weights as without the
            interruption; of one that is finished, give the result again.
        callbacks: Lightning's, looked at when the data are there.
        parts: The data, if the task's `read` has read them already.

    Returns:
        The test scores of the last network and of the best one on the validation images, as in `result.json`.

    Raises:
        ModelInputError: For a directory in use, a run of another configuration, and a checkpoint of another network.
        NotWrittenError: If the disk is full, or the directory cannot be written.
    """
    task = task_for(config.model)
    with process_group(device) as where, ExitStack() as held:
        _check(directory, config, resume)
        if resume and (finished := RunResult.read(directory, config)):
            return finished
        held.enter_context(lock_directory(directory))
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
    raise ModelInputError("run", f"{directory} keeps no epochs; train with keep_every=1 to keep them")
