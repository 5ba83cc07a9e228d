"""Training runs: one directory each, started, resumed after any interruption, and finished."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from dia_models.allocator import keep_freed_memory
from dia_models.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint
from dia_models.errors import ModelInputError
from dia_models.machine import Machine
from dia_models.metrics_file import seconds
from dia_models.network import Network
from dia_models.processes import first_first, joined, rank, wait
from dia_models.result import RunResult, versions
from dia_models.run_config import RunConfig
from dia_models.saving import CONFIG, leftover, save, writing
from dia_models.starting import start_from
from dia_models.tasks import Job, task_for
from dia_models.training import LAST, METRICS, BestEpoch, KeptEpochs, NotFiniteError, Training, make_trainer

__all__ = ["BEST_MODEL", "MODEL", "RunConfig", "RunResult", "fit", "kept_epochs", "versions"]

MODEL, BEST_MODEL, KEPT = "model.safetensors", "best.safetensors", "epoch-{:04d}.safetensors"


def fit(
    config: RunConfig,
    directory: Path,
    device: torch.device,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    strict: bool = False,
    resume: bool = False,
    callbacks: tuple[Callback, ...] = (),
    parts: Any = None,
) -> RunResult:
    """Train a network, test it once, and leave its checkpoints in `directory`; `dia_models.tasks` says for what.

    A new run needs a directory that does not exist or is empty; `resume` continues one at the last epoch that
    was completed, to the same weights as without the interruption on the same machine, and gives the result again of
    one that is finished. An image that cannot be read is left out with a warning, or an error if `strict`; `download`
    fetches data that are missing. `config.start_from` names a checkpoint whose weights to start from. With
    `config.keep_every` the network is also kept before training and after every so many epochs (`kept_epochs`). `parts`
    are the data if the task's `read` has read them already.

    A loss that becomes infinite or not a number ends the run with the outcome "nan". Under `torchrun` the processes
    share each batch; the first one writes.

    Raises ModelInputError for a directory in use, for a run of another configuration, and for a checkpoint of another
    network; NotWrittenError if the disk is full.
    """
    task = task_for(config.model)
    with joined(device) as where:
        _check(directory, config, resume)
        if resume and (finished := RunResult.read(directory, config)):
            return finished
        with first_first():  # none writes before all have looked into the directory
            parts = parts or task.read(
                config.data,
                config.image_size,
                config.channels,
                data_dir=data_dir,
                download=download,
                strict=strict,
                stream=config.recipe.streams,
            )
        job = task.plan(config, parts)
        run = _Run(config, directory, where, job)
        return run.finish(*run.train(_start(config, job), resume, callbacks))


def _check(directory: Path, config: RunConfig, resume: bool) -> None:
    if resume:
        started = RunConfig.read(directory)
        if started != config:
            changed = [k for k in RunConfig.model_fields if getattr(started, k) != getattr(config, k)]
            raise ModelInputError(
                "resume",
                f"{directory} is a run with another {', '.join(changed)}; leave these options out to resume it",
            )
    elif directory.exists() and (not directory.is_dir() or not all(map(leftover, directory.iterdir()))):
        raise ModelInputError(
            "out", f"{directory} exists and is not empty; choose another directory, or --resume the run in it"
        )


def _start(config: RunConfig, job: Job) -> Network:
    torch.manual_seed(config.seed)
    model = job.build()
    if config.start_from is not None:
        start_from(Checkpoint.read(config.start_from), model)
    return model.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class _Run:
    config: RunConfig
    directory: Path
    device: torch.device
    job: Job

    def train(self, model: Network, resume: bool, callbacks: tuple[Callback, ...]) -> tuple[nn.Module, int | None]:
        """Train; gives the network and, if the loss was not finite, the epoch in which that happened."""
        self._open()
        training = self.job.training(model)
        trainer = self._trainer(training, callbacks)
        data = self.job.data()
        last = self.directory / LAST
        nan_epoch = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.")  # of Lightning's own use of torch
            try:
                trainer.fit(training, datamodule=data, ckpt_path=str(last) if resume and last.exists() else None)
            except NotFiniteError as error:
                nan_epoch = error.epoch
        return training.network.to(self.device), nan_epoch

    def finish(self, model: nn.Module, nan_epoch: int | None) -> RunResult:
        """Test the last network and the best one."""
        last = self.job.undefined() if nan_epoch else self.job.test(model, self.device)
        self._save(MODEL, model, {} if nan_epoch else last.scores)
        best = None
        if (self.directory / BEST_MODEL).exists():
            model.load_state_dict(Checkpoint.read(self.directory / BEST_MODEL).weights)
            best = self.job.test(model, self.device)
            self._save(BEST_MODEL, model, best.scores)
        spent = seconds(self.directory / METRICS)
        result = RunResult(self.directory, self.config, last, best, nan_epoch, self._machine(), spent)
        if rank() == 0:
            result.save()
        wait()
        return result

    def _open(self) -> None:
        if rank() == 0:
            save(self.directory / CONFIG, self.config.model_dump_json(indent=2).encode())
            for path in filter(leftover, self.directory.iterdir()):
                path.unlink()
        if self.device.type == "cpu":
            keep_freed_memory()

    def _trainer(self, training: Training, callbacks: tuple[Callback, ...]) -> lightning.Trainer:
        keeping: list[Callback] = []
        best_by = self.job.best_by
        if (every := self.config.keep_every) is not None:
            keeping.append(KeptEpochs(every, lambda epoch: self._save(KEPT.format(epoch), training.network, {}, epoch)))
        if best_by is not None:
            keeping.append(BestEpoch(lambda: self._save(BEST_MODEL, training.network, {}), best_by))
        return make_trainer(
            self.config.recipe,
            self.directory,
            self.device,
            self._machine().precision,
            (*keeping, *callbacks),
            validates=best_by is not None,
        )

    def _machine(self) -> Machine:
        return Machine.here(self.config.recipe.precision, self.device)

    def _save(self, name: str, model: nn.Module, metrics: dict[str, float], epoch: int | None = None) -> None:
        if rank() == 0:
            with writing(self.directory / name):
                save_checkpoint(self.directory / name, model, self._info(model, metrics, epoch))

    def _info(self, model: nn.Module, metrics: dict[str, float], epoch: int | None) -> CheckpointInfo:
        config = self.config
        assert isinstance(model, Network)
        return CheckpointInfo(
            model=model.spec,
            data=config.data,
            classes=self.job.classes,
            preprocessing=self.job.preprocessing,
            recipe={
                "name": config.recipe_name,
                **config.recipe.model_dump(exclude={"milestones"}, exclude_none=True),
                **({"start_from": Checkpoint.read(config.start_from).sha256} if config.start_from else {}),
            },
            metrics=metrics,
            seed=config.seed,
            epoch=epoch,
            versions=versions(),
            machine=self._machine(),
        )


def kept_epochs(directory: Path) -> list[Path]:
    """The checkpoints that a run with `keep_every` kept, by epoch. Raises ModelInputError if there is none."""
    paths = directory.glob("epoch-*.safetensors")
    if kept := sorted(paths, key=lambda path: (len(path.name), path.name)):
        return kept
    raise ModelInputError(
        "run", f"{directory} keeps no epochs; train with dia-train fit --keep-every 1 --out {directory}"
    )
