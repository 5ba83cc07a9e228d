"""Training runs: one directory each, started, resumed after any interruption, and finished."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from dia_models.allocator import keep_freed_memory
from dia_models.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint
from dia_models.data import ImageSource, MemoryImages, Preprocessing, hold_out, open_data, suited
from dia_models.data.images import fitted
from dia_models.device import choose_precision
from dia_models.errors import ModelInputError
from dia_models.evaluation import Evaluation, evaluate
from dia_models.models import create_model, require_classifier
from dia_models.network import Network
from dia_models.processes import first_first, joined, rank, wait
from dia_models.result import RunResult, undefined, versions
from dia_models.run_config import RunConfig
from dia_models.saving import CONFIG, leftover, save, writing
from dia_models.subset import balanced_subset
from dia_models.training import LAST, BestEpoch, KeptEpochs, NotFiniteError, Training, TrainingData, make_trainer

__all__ = ["BEST_MODEL", "MODEL", "RunConfig", "RunResult", "fit", "kept_epochs", "read_parts", "versions"]

MODEL, BEST_MODEL, KEPT = "model.safetensors", "best.safetensors", "epoch-{:04d}.safetensors"


Parts = tuple[MemoryImages, MemoryImages]  # to train on, and to test on


@dataclass(frozen=True)
class _Images:
    train: MemoryImages
    validation: MemoryImages | None
    test: MemoryImages
    preprocessing: Preprocessing


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
    parts: Parts | None = None,
) -> RunResult:
    """Train a network, test it once, and leave its checkpoints in `directory`.

    A new run needs a directory that does not exist or is empty; `resume` continues one at the last epoch that
    was completed, to the same weights as without the interruption on the same machine, and gives the result again of
    one that is finished. An image that cannot be read is left out with a warning, or an error if `strict`; `download`
    fetches data that are missing. `config.start_from` names a checkpoint whose weights to start from. With
    `config.keep_every` the network is also kept before training and after every so many epochs (`kept_epochs`). `parts`
    are the data if `read_parts` has read them already.

    A loss that becomes infinite or not a number ends the run with the outcome "nan". Under `torchrun` the processes
    share each batch; the first one writes.

    Raises ModelInputError for a directory in use, for a run of another configuration, and for a checkpoint of another
    network; NotWrittenError if the disk is full.
    """
    require_classifier(config.model, "model")
    with joined(device) as where:
        _check(directory, config, resume)
        if resume and (finished := RunResult.read(directory, config)):
            return finished
        with first_first():  # none writes before all have looked into the directory
            parts = parts or read_parts(
                config.data,
                config.image_size,
                config.channels,
                data_dir=data_dir,
                download=download,
                strict=strict,
            )
        images = _divided(config, *parts)
        run = _Run(config, directory, where, images)
        return run.finish(*run.train(_start(config, images), resume, callbacks))


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


def _start(config: RunConfig, images: _Images) -> Network:
    torch.manual_seed(config.seed)
    model = create_model(
        config.model,
        num_classes=len(images.train.classes),
        in_channels=images.train.pixels.shape[3],
        **config.options,
    )
    if config.start_from is not None:
        _copy_weights(Checkpoint.read(config.start_from), model)
    return model.to(memory_format=torch.channels_last)


def _copy_weights(checkpoint: Checkpoint, model: Network) -> None:
    if checkpoint.info.model != model.spec:
        raise ModelInputError(
            "from",
            f"{checkpoint.name} holds {checkpoint.info.model.name} of {checkpoint.info.model.num_classes} "
            f"classes, which cannot start {model.spec.name} of {model.spec.num_classes}",
        )
    model.load_state_dict(checkpoint.weights)


def read_parts(
    data: str,
    image_size: int | None = None,
    channels: int = 3,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    strict: bool = False,
) -> Parts:
    """Read the training and the test images of a data set into memory, files at `image_size` pixels.

    Raises ModelInputError for data without classes, and if the two parts' classes are not the same.
    """
    train, test = (
        _in_memory(open_data(data, part, data_dir, strict=strict, download=download), image_size, channels)
        for part in ("train", "test")
    )
    if not train.classes:
        raise ModelInputError("data", f"{data} has no classes to train on; put each class in a folder of its own")
    if test.classes != train.classes:
        raise ModelInputError("data", f"{data}: the test classes are not the training classes")
    return train, test


def _in_memory(source: ImageSource, image_size: int | None, channels: int) -> MemoryImages:
    size = None if image_size is None else (image_size, image_size)
    if isinstance(source, MemoryImages):
        return replace(source, pixels=fitted(source.pixels, size, source.pixels.shape[3]))
    images = source.load(size, channels)
    if source.unreadable:
        names = ", ".join(sorted(source.unreadable))
        warnings.warn(f"{len(source.unreadable)} images cannot be read and are left out: {names}", stacklevel=2)
    return images


def _divided(config: RunConfig, train: MemoryImages, test: MemoryImages) -> _Images:
    kept, validation = hold_out(train, config.recipe.validation, config.seed)
    if config.recipe.training_images is not None:
        kept = balanced_subset(kept, config.recipe.training_images, config.seed)
    return _Images(kept, validation, test, suited(config.data, kept.pixels))


@dataclass(frozen=True)
class _Run:
    config: RunConfig
    directory: Path
    device: torch.device
    images: _Images

    def train(self, model: Network, resume: bool, callbacks: tuple[Callback, ...]) -> tuple[nn.Module, int | None]:
        """Train; gives the network and, if the loss was not finite, the epoch in which that happened."""
        self._open()
        recipe, images = self.config.recipe, self.images
        training = Training(model, recipe, images.preprocessing, len(images.train), self.config.seed)
        trainer = self._trainer(training, callbacks)
        data = TrainingData(images.train, images.validation, recipe, self.config.seed)
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
        classes = len(self.images.test.classes)
        last = undefined(len(self.images.test), classes) if nan_epoch else self._test(model)
        self._save(MODEL, model, {} if nan_epoch else _scores(last))
        best = None
        if (self.directory / BEST_MODEL).exists():
            model.load_state_dict(Checkpoint.read(self.directory / BEST_MODEL).weights)
            best = self._test(model)
            self._save(BEST_MODEL, model, _scores(best))
        result = RunResult(self.directory, self.config, last, best, nan_epoch)
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
        validates = self.images.validation is not None
        if (every := self.config.keep_every) is not None:
            keeping.append(KeptEpochs(every, lambda epoch: self._save(KEPT.format(epoch), training.network, {}, epoch)))
        if validates:
            keeping.append(BestEpoch(lambda: self._save(BEST_MODEL, training.network, {})))
        precision = choose_precision(self.config.recipe.precision, self.device)
        return make_trainer(
            self.config.recipe,
            self.directory,
            self.device,
            precision,
            (*keeping, *callbacks),
            validates=validates,
        )

    def _test(self, model: nn.Module) -> Evaluation:
        test = self.images.test
        batches = test.batches(range(len(test)), self.config.recipe.batch_size, None, test.pixels.shape[3])
        return evaluate(model, batches, self.images.preprocessing, len(test.classes), self.device)

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
            classes=self.images.train.classes,
            preprocessing=self.images.preprocessing,
            recipe={
                "name": config.recipe_name,
                **config.recipe.model_dump(exclude={"milestones"}, exclude_none=True),
                **({"start_from": Checkpoint.read(config.start_from).sha256} if config.start_from else {}),
            },
            metrics=metrics,
            seed=config.seed,
            epoch=epoch,
            versions=versions(),
        )


def _scores(evaluation: Evaluation) -> dict[str, float]:
    return {"test_accuracy": evaluation.accuracy, "test_loss": evaluation.loss}


def kept_epochs(directory: Path) -> list[Path]:
    """The checkpoints that a run with `keep_every` kept, by epoch. Raises ModelInputError if there is none."""
    paths = directory.glob("epoch-*.safetensors")
    if kept := sorted(paths, key=lambda path: (len(path.name), path.name)):
        return kept
    raise ModelInputError(
        "run", f"{directory} keeps no epochs; train with dia-train fit --keep-every 1 --out {directory}"
    )
