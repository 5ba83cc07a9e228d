"""Training runs: one directory each, started, resumed after any interruption, and finished."""

import json
import platform
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dia_models.allocator import keep_freed_memory
from dia_models.checkpoint import Checkpoint, CheckpointInfo, save_checkpoint, write_atomically
from dia_models.data import ImageSource, MemoryImages, Preprocessing, hold_out, open_data, suited
from dia_models.device import choose_precision
from dia_models.errors import ModelInputError
from dia_models.evaluation import Evaluation, evaluate
from dia_models.models import create_model, require_classifier
from dia_models.network import Network, Option
from dia_models.recipe import Recipe
from dia_models.training import BEST, LAST, KeptEpochs, Training, TrainingData, make_trainer

CONFIG, RESULT, MODEL, BEST_MODEL = "run.json", "result.json", "model.safetensors", "best.safetensors"
KEPT = "epoch-{:04d}.safetensors"


class RunConfig(BaseModel):
    """What a run is: enough to start it again from nothing. It is in the run's directory before training begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_name: Literal["dia.run/1"] = "dia.run/1"
    model: str
    options: dict[str, Option] = {}
    data: str
    recipe_name: str
    recipe: Recipe
    image_size: int | None = Field(default=None, ge=1, le=4096)
    channels: int = Field(default=3, ge=1, le=3)
    seed: int = 0
    start_from: str | None = None
    keep_every: int | None = Field(default=None, ge=1)

    @classmethod
    def read(cls, directory: Path) -> "RunConfig":
        """The configuration of a run that was started. Raises ModelInputError if there is none to read."""
        path = directory / CONFIG
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise ModelInputError("resume", f"{directory} holds no run: it has no {CONFIG}") from error
        except ValidationError as error:
            raise ModelInputError("resume", f"{path} cannot be read: {error.errors()[0]['msg']}") from error


@dataclass(frozen=True)
class RunResult:
    """A finished run: test scores of the last epoch's network and of the best one on the validation images."""

    directory: Path
    config: RunConfig
    last: Evaluation
    best: Evaluation | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.fit/1. A loss that is not finite is null."""
        return {
            "schema": "dia.fit/1",
            "directory": str(self.directory),
            "model": self.config.model,
            "data": self.config.data,
            "seed": self.config.seed,
            "images": self.last.images,
            "last": _document(self.last),
            "best": None if self.best is None else _document(self.best),
            "versions": versions(),
        }


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
) -> RunResult:
    """Train a network, test it once, and leave its checkpoints in `directory`.

    A new run needs a directory that does not exist or is empty; `resume` continues one at the last epoch that
    was completed, to the same weights as without the interruption on the same machine. An image that cannot be read
    is left out with a warning, or an error if `strict`; `download` fetches data that are missing.
    `config.start_from` names a checkpoint whose weights to start from. With `config.keep_every` the network is also
    kept before training and after every so many epochs (`kept_epochs`). Raises ModelInputError for a directory in use,
    for a run of another configuration, and for a checkpoint of another network.
    """
    require_classifier(config.model, "model")
    _check(directory, config, resume)
    images = _read_images(config, data_dir, download, strict)
    torch.manual_seed(config.seed)
    model = create_model(
        config.model,
        num_classes=len(images.train.classes),
        in_channels=images.train.pixels.shape[3],
        **config.options,
    )
    if config.start_from is not None:
        _copy_weights(Checkpoint.read(config.start_from), model)
    model.to(memory_format=torch.channels_last)
    write_atomically(directory / CONFIG, config.model_dump_json(indent=2).encode())
    _train(model, config, images, directory, device, resume, callbacks)
    return _finish(model, config, images, directory, device)


def _check(directory: Path, config: RunConfig, resume: bool) -> None:
    if resume:
        started = RunConfig.read(directory)
        if started != config:
            changed = [k for k in RunConfig.model_fields if getattr(started, k) != getattr(config, k)]
            raise ModelInputError(
                "resume",
                f"{directory} is a run with another {', '.join(changed)}; leave these options out to resume it",
            )
    elif directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ModelInputError(
            "out", f"{directory} exists and is not empty; choose another directory, or --resume the run in it"
        )


def _copy_weights(checkpoint: Checkpoint, model: Network) -> None:
    if checkpoint.info.model != model.spec:
        raise ModelInputError(
            "from",
            f"{checkpoint.name} holds {checkpoint.info.model.name} of {checkpoint.info.model.num_classes} "
            f"classes, which cannot start {model.spec.name} of {model.spec.num_classes}",
        )
    model.load_state_dict(checkpoint.weights)


def _read_images(config: RunConfig, data_dir: Path | None, download: bool, strict: bool) -> _Images:
    train = _in_memory(open_data(config.data, "train", data_dir, strict=strict, download=download), config)
    test = _in_memory(open_data(config.data, "test", data_dir, strict=strict, download=download), config)
    if not train.classes:
        raise ModelInputError(
            "data", f"{config.data} has no classes to train on; put each class in a folder of its own"
        )
    if test.classes != train.classes:
        raise ModelInputError("data", f"{config.data}: the test classes are not the training classes")
    kept, validation = hold_out(train, config.recipe.validation, config.seed)
    return _Images(kept, validation, test, suited(config.data, kept.pixels))


def _in_memory(source: ImageSource, config: RunConfig) -> MemoryImages:
    if isinstance(source, MemoryImages):
        return source
    size = None if config.image_size is None else (config.image_size, config.image_size)
    images = source.load(size, config.channels)
    if source.unreadable:
        names = ", ".join(sorted(source.unreadable))
        warnings.warn(f"{len(source.unreadable)} images cannot be read and are left out: {names}", stacklevel=2)
    return images


def _train(
    model: Network,
    config: RunConfig,
    images: _Images,
    directory: Path,
    device: torch.device,
    resume: bool,
    callbacks: tuple[Callback, ...],
) -> None:
    def keep(epoch: int) -> None:
        save_checkpoint(directory / KEPT.format(epoch), model, _info(model, config, images, {}, epoch))

    if device.type == "cpu":
        keep_freed_memory()
    precision = choose_precision(config.recipe.precision, device)
    kept = () if config.keep_every is None else (KeptEpochs(config.keep_every, keep),)
    trainer = make_trainer(config.recipe, directory, device, precision, (*kept, *callbacks))
    training = Training(model, config.recipe, images.preprocessing, len(images.train), config.seed)
    data = TrainingData(images.train, images.validation, config.recipe, config.seed)
    last = directory / LAST
    with warnings.catch_warnings():  # two of Lightning's that no user can act on
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.")
        trainer.fit(
            training,
            datamodule=data,
            ckpt_path=str(last) if resume and last.exists() else None,
            weights_only=True,
        )


def _finish(model: Network, config: RunConfig, images: _Images, directory: Path, device: torch.device) -> RunResult:
    model.to(device)
    last = _test(model, images, config.recipe.batch_size, device)
    save_checkpoint(directory / MODEL, model, _info(model, config, images, _scores(last)))
    best = None
    if (directory / BEST).exists():
        state = torch.load(directory / BEST, map_location=device, weights_only=True)["state_dict"]
        model.load_state_dict({name.removeprefix("model."): t for name, t in state.items()})
        best = _test(model, images, config.recipe.batch_size, device)
        save_checkpoint(directory / BEST_MODEL, model, _info(model, config, images, _scores(best)))
    result = RunResult(directory, config, last, best)
    write_atomically(directory / RESULT, json.dumps(result.to_dict(), indent=2).encode())
    return result


def _test(model: Network, images: _Images, batch_size: int, device: torch.device) -> Evaluation:
    batches = images.test.batches(range(len(images.test)), batch_size, None, images.test.pixels.shape[3])
    return evaluate(model, batches, images.preprocessing, len(images.test.classes), device)


def _info(
    model: Network, config: RunConfig, images: _Images, metrics: dict[str, float], epoch: int | None = None
) -> CheckpointInfo:
    return CheckpointInfo(
        model=model.spec,
        data=config.data,
        classes=images.train.classes,
        preprocessing=images.preprocessing,
        recipe={
            "name": config.recipe_name,
            **config.recipe.model_dump(exclude={"milestones"}),
            **({"start_from": Checkpoint.read(config.start_from).sha256} if config.start_from else {}),
        },
        metrics=metrics,
        seed=config.seed,
        epoch=epoch,
        versions=versions(),
    )


def _scores(evaluation: Evaluation) -> dict[str, float]:
    return {"test_accuracy": evaluation.accuracy, "test_loss": evaluation.loss}


def _document(evaluation: Evaluation) -> dict[str, float | None]:
    return {name: score if isfinite(score) else None for name, score in _scores(evaluation).items()}


def kept_epochs(directory: Path) -> list[Path]:
    """The checkpoints that a run with `keep_every` kept, by epoch. Raises ModelInputError if there is none."""
    paths = directory.glob("epoch-*.safetensors")
    if kept := sorted(paths, key=lambda path: (len(path.name), path.name)):
        return kept
    raise ModelInputError(
        "run", f"{directory} keeps no epochs; train with dia-train fit --keep-every 1 --out {directory}"
    )


def versions() -> dict[str, str]:
    """The versions of what the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "dia-analysis": version("dia-analysis"),
    }
