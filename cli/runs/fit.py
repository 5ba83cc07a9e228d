"""dia-train fit."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cli.common.console import note, say, say_json
from cli.common.naming import default_name
from cli.common.publish import Out, first_free
from cli.common.settings import parse_setting
from dia_analysis.distributed import from_first
from dia_analysis.results.output import TakenError, hold, is_free
from dia_models import ModelInputError, ModelSpec
from dia_models.backbones.stage import Stage
from dia_models.classification.evaluation import Evaluation, Measured
from dia_models.data.detection.digit_scenes import SIDE
from dia_models.errors import unknown
from dia_models.factory import accepted_options, blueprint, build_model, task_of
from dia_models.runs.run import RunConfig, RunResult, fit
from dia_models.training.device import choose_device
from dia_models.training.distributed import joined
from dia_models.training.files import CONFIG
from dia_models.training.machine import in_words
from dia_models.training.recipe import Recipe, load_recipe

DEFAULT_RECIPE = "one_cycle"
SUITED: dict[str, dict[str, Any]] = {  # mirrored digits are none
    "digits": {"augment": "crop", "padding": 1},
    "digit-scenes": {"augment": "none", "min_size": SIDE},
}


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
    with joined(where), ExitStack() as held:
        options = {"data_dir": data_dir, "download": download, "strict": strict, "resume": resume}
        result = _train(config, out or _new_folder(config, held), where, tensorboard, options)
    _print(result, as_json)


def _new_folder(config: RunConfig, held: ExitStack) -> Path:
    """Take the first default folder that is free; of several processes, the first does."""

    def enter(path: Path) -> Path:
        held.enter_context(hold(path))
        if not is_free(path):
            raise TakenError("out", f"{path} exists")
        return path

    paths = Out(None).paths(default_name("fit", [f"{config.model}-seed{config.seed}"], config.data))
    return from_first(lambda: first_free(paths, enter))


def _train(config: RunConfig, out: Path, where: torch.device, tensorboard: bool, options: dict[str, Any]) -> RunResult:
    try:
        return fit(config, out, where, callbacks=_watchers(out, tensorboard), **options)
    except (KeyboardInterrupt, SystemExit) as error:  # the second is Lightning's answer to an interrupt
        begun = (out / CONFIG).exists()
        kept = f"to continue: dia-train fit --resume --out {out}" if begun else "nothing was trained yet"
        raise KeyboardInterrupt(kept) from error


def _watchers(out: Path, tensorboard: bool) -> Iterator[Any]:
    """What watches a run; made when the data have been read, since Lightning takes seconds to import."""
    from cli.runs.progress import RunProgress
    from dia_models.training.tensorboard import TensorBoardLog

    yield RunProgress()
    if tensorboard:
        yield TensorBoardLog(out)


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
    _check_options(model, options)
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


def _check_options(model: str, options: dict[str, Any]) -> None:
    """Raise ModelInputError, before any data are read, for what is neither a field of the recipe nor an option."""
    accepted = accepted_options(model)
    for key in options.keys() - accepted.keys():
        raise unknown("set", key, [*Recipe.model_fields, *accepted], listed_by="docs/training.md")
    blueprint(ModelSpec(name=model, options=options))


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
            f"{result.config.model} on {result.config.data}: training stopped in epoch {result.nan_epoch}: the loss is "
            "NaN or infinite. A lower learning rate or clipping (--set clip=1) may help."
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
        for command in _fitting_analyses(ModelSpec(name=result.config.model, options=result.config.options)):
            note(f"look inside: dia-analyze {command} --ckpt {result.directory}/model.safetensors")


def _fitting_analyses(spec: ModelSpec) -> list[str]:
    """The commands that have something to show of a classifier: correlation takes two layers in a stage."""
    with torch.device("meta"):
        modules = list(build_model(spec).modules())
    layers = [sum(m.connected) for m in modules if isinstance(m, Stage) and m.attention is not None]
    self_attention = sum(isinstance(module, nn.MultiheadAttention) for module in modules)
    return ["correlation"] if max([*layers, self_attention]) > 1 else ["gradcam", "gradients"]


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f", {seconds:.0f} s"


def _told(measured: Measured) -> str:
    """The scores in words; accuracies are percentages."""
    forms = {"test_accuracy": ".2%"}
    scores = measured.scores.items()
    return ", ".join(f"{name.removeprefix('test_')} {value:{forms.get(name, '.3f')}}" for name, value in scores)
