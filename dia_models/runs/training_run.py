"""One training run: train, keep what is to be kept, test."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from dia_models.checkpoints.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint
from dia_models.checkpoints.warm_start import start_from
from dia_models.runs.result import RunResult, versions
from dia_models.runs.tasks import Job
from dia_models.spec import Network
from dia_models.training.callbacks import BestEpoch, KeptEpochs, training_seconds
from dia_models.training.config import RunConfig
from dia_models.training.device import keep_freed_memory
from dia_models.training.distributed import barrier, rank
from dia_models.training.files import BEST_MODEL, CONFIG, EPOCH_FILE, LAST, METRICS, MODEL, leftover, save, writing
from dia_models.training.machine import Machine
from dia_models.training.module import NotFiniteError, Training
from dia_models.training.trainer import make_trainer


@dataclass(frozen=True)
class TrainingRun:
    """A run: its job, and where its files go."""

    config: RunConfig
    directory: Path
    device: torch.device
    job: Job

    def start(self) -> Network:
        """The network as it is before training."""
        torch.manual_seed(self.config.seed)
        model = self.job.build()
        if self.config.start_from is not None:
            start_from(Checkpoint.read(self.config.start_from), model)
        return model.to(memory_format=torch.channels_last)

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
        last = self.job.undefined_scores() if nan_epoch else self.job.test(model, self.device)
        self._save(MODEL, model, {} if nan_epoch else last.scores)
        best = None
        if (self.directory / BEST_MODEL).exists():
            model.load_state_dict(Checkpoint.read(self.directory / BEST_MODEL).weights)
            best = self.job.test(model, self.device)
            self._save(BEST_MODEL, model, best.scores)
        spent = training_seconds(self.directory / METRICS)
        result = RunResult(self.directory, self.config, last, best, nan_epoch, self._machine(), spent)
        if rank() == 0:
            result.save()
        barrier()
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
            keeping.append(KeptEpochs(every, lambda epoch: self._keep(training.network, epoch)))
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

    def _keep(self, model: nn.Module, epoch: int) -> None:
        self._save(EPOCH_FILE.format(epoch), model, {}, epoch)

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
