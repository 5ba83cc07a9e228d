"""dia-train fit."""

import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.progress import TaskID

from cli.console import note, progress_bar, say, say_json
from cli.settings import parse_setting
from dia_models import ModelInputError
from dia_models.data.digit_scenes import SIDE
from dia_models.device import choose_device
from dia_models.evaluation import Evaluation, Measured
from dia_models.machine import in_words
from dia_models.models import task_of
from dia_models.recipe import Recipe, load_recipe
from dia_models.run import RunConfig, RunResult, fit
from dia_models.tensorboard import TensorBoardLog

DEFAULT_RECIPE = "one_cycle"
SUITED: dict[str, dict[str, Any]] = {  # mirrored digits are none
    "digits": {"augment": "crop", "padding": 1},
    "digit-scenes": {"augment": "none", "min_size": SIDE},
}
TOLD = (
    ("train_loss", "loss", ".3f"),
    ("train_accuracy", "accuracy", ".2%"),
    ("val_accuracy", "validation accuracy", ".2%"),
)


class RunProgress(Callback):
    """A bar of the whole run with images per second and the time that is left, and a line on stderr per epoch."""

    def __init__(self) -> None:
        self.bar = progress_bar()
        self.task: TaskID | None = None
        self.images = 0
        self.started = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the bar in the first epoch, behind those that a resumed run has done."""
        self.images, self.started = 0, time.perf_counter()
        epochs, batches = int(trainer.max_epochs or 0), int(trainer.num_training_batches)
        if self.task is None:
            done = trainer.current_epoch * batches
            self.task = self.bar.add_task("", total=epochs * batches, completed=done, detail="")
            self.bar.start()
        self.bar.update(self.task, description=f"epoch {trainer.current_epoch + 1}/{epochs}")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance it."""
        self.images += len(batch[1]) * trainer.world_size
        assert self.task is not None
        self.bar.update(self.task, advance=1, detail=f"{self._rate():.0f} images/s")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's line; above the bar, where there is one."""
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [f"{words} {seen[name]:{form}}" for name, words, form in TOLD if name in seen]
        parts.append(f"{self._rate():.0f} images/s")
        note(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {', '.join(parts)}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the terminal as it was."""
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _close(self) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.bar.stop()

    def _rate(self) -> float:
        return self.images / (time.perf_counter() - self.started)


def fit_or_resume(
    model: str | None,
    data: str | None,
    recipe: str | None,
    changes: list[str],
    *,
    out: Path | None,
    resume: bool,
    image_size: int | None,
    channels: int,
    start_from: str | None,
    keep_every: int | None,
    data_dir: Path | None,
    download: bool = False,
    strict: bool,
    device: str,
    seed: int,
    as_json: bool,
    tensorboard: bool = False,
) -> None:
    """Start a run, or continue the one in `out`."""
    where = choose_device(device)
    if resume:
        if out is None:
            raise ModelInputError("out", "--resume needs the run's directory: --out DIR")
        config = RunConfig.read(out)
        _check_same(config, model=model, data=data, recipe_name=recipe, keep_every=keep_every)
        if RunResult.read(out, config):
            note(f"{out} is finished: there is nothing left to train; this is its result")
    else:
        config = _new_config(model, data, recipe, changes, image_size, channels, seed, start_from, keep_every)
        out = out or Path("dia-out") / f"{config.data.replace(':', '-').replace('/', '-')}-{config.model}-{seed}"
    watchers = (TensorBoardLog(out),) if tensorboard else ()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        result = fit(
            config,
            out,
            where,
            data_dir=data_dir,
            download=download,
            strict=strict,
            resume=resume,
            callbacks=(RunProgress(), *watchers),
        )
    except SystemExit as error:  # Lightning's answer to an interrupt
        note(f"interrupted; to continue: dia-train fit --resume --out {out}")
        raise KeyboardInterrupt from error
    _print(result, as_json)


def _new_config(
    model: str | None,
    data: str | None,
    recipe: str | None,
    changes: list[str],
    image_size: int | None,
    channels: int,
    seed: int,
    start_from: str | None,
    keep_every: int | None,
) -> RunConfig:
    if model is None or data is None:
        missing = "model" if model is None else "data"
        raise ModelInputError(
            missing, f"say which {missing} to train with, for example --model cifar_resnet29_se --data digits"
        )
    if channels not in (1, 3):
        raise ModelInputError("channels", f"{channels} given; accepted: 1 or 3")
    name = recipe or _default_recipe(model)
    values = {**SUITED.get(data, {}), **dict(parse_setting(change) for change in changes)}
    recipe_values = {key: value for key, value in values.items() if key in Recipe.model_fields}
    options = {key: value for key, value in values.items() if key not in recipe_values}
    return RunConfig(
        model=model,
        options=options,
        data=data,
        recipe_name=name,
        recipe=load_recipe(name, **recipe_values),
        image_size=image_size,
        channels=channels,
        seed=seed,
        start_from=start_from,
        keep_every=keep_every,
    )


def _default_recipe(model: str) -> str:
    if task_of(model) == "detection":
        return "paper_retinanet" if model.startswith("retinanet") else "paper_detection"
    return DEFAULT_RECIPE


def _check_same(config: RunConfig, **given: str | int | None) -> None:
    for field, value in given.items():
        started = getattr(config, field)
        if value is not None and value != started:
            raise ModelInputError("resume", f"the run was started with {field} {started}, not {value}")


def _print(result: RunResult, as_json: bool) -> None:
    if as_json:
        say_json(result.to_dict())
        return
    if result.outcome == "nan":
        say(
            f"The loss of {result.config.model} on {result.config.data} was no longer a finite number in epoch "
            f"{result.nan_epoch}, where the run ended; it may need a lower learning rate, or clipping."
        )
        note(f"written to {result.directory}/")
        return
    say(f"{result.config.model} on {result.last.images} test images of {result.config.data}")
    say(f"  after the last epoch:      {_told(result.last)}")
    if result.best is not None:
        say(f"  best on validation images: {_told(result.best)}")
    say(f"  precision in training: {in_words(result.machine)}{_time(result.training_seconds)}")
    note(f"written to {result.directory}/")
    if isinstance(result.last, Evaluation):
        note(f"look inside: dia-analyze correlation --ckpt {result.directory}/model.safetensors")


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f", {seconds:.0f} s"


def _told(measured: Measured) -> str:
    """The scores in words; accuracies are percentages."""
    forms = {"test_accuracy": ".2%"}
    scores = measured.scores.items()
    return ", ".join(f"{name.removeprefix('test_')} {value:{forms.get(name, '.3f')}}" for name, value in scores)
