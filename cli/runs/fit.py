"""dia-train fit."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cli.common import options as o
from cli.common.console import note, progress_bar, show
from cli.common.options import option
from cli.common.publish import Out, default_name

if TYPE_CHECKING:
    from dia_models import ModelSpec
    from dia_models.training.config import RunConfig

START_FROM = "Start from a checkpoint's weights (a path or a bundled name), by default its network and data too."
KEEP_EVERY = "Also keep the network before training and after every N epochs."


@dataclass(frozen=True)
class FitOptions:
    """What to train, on what, and where."""

    model: Annotated[str | None, option("A name that dia-train models lists.", check=o.known_model)] = None
    data: Annotated[str | None, option("digits, cifar10 or folder:PATH; for detectors coco, coco:PATH.")] = None
    recipe: Annotated[str | None, option("A name that dia-train recipes lists.", check=o.known_recipe)] = None
    changes: o.Set = None
    out: o.OutFolder = None
    resume: Annotated[bool, option("Continue the run in --out after an interruption.")] = False
    image_size: Annotated[int | None, option("Resize image files to this many pixels.", min=8)] = None
    channels: Annotated[int, option("Channels of image files: 1 (gray) or 3.")] = 3
    start_from: Annotated[str | None, option(START_FROM, "--from", check=o.known_checkpoint)] = None
    keep_every: Annotated[int | None, option(KEEP_EVERY, min=1)] = None
    tensorboard: Annotated[bool, option("Also write the metrics for TensorBoard, into the run's folder.")] = False
    data_dir: o.DataDir = None
    download: o.Download = False
    strict: o.Strict = False
    device: o.Device = "auto"
    seed: o.Seed = 0
    as_json: o.Json = False


def fit_or_resume(given: FitOptions) -> None:
    """Start a run, or continue the one in `out`, and print its result."""
    from dia_models.training.device import choose_device

    where, config = choose_device(given.device), _started(given) if given.resume else _new(given)
    from dia_models.runs.run import fit  # what trains is imported when it is known that it can
    from dia_models.spec import ModelSpec
    from dia_models.training.distributed import process_group
    from dia_models.training.scores import Evaluation

    with process_group(where), ExitStack() as held:
        out = given.out or _new_folder(config, held)
        with _kept(out):
            how: Any = {key: getattr(given, key) for key in ("data_dir", "download", "strict", "resume")}
            result = fit(config, out, where, callbacks=_watchers(out, given.tensorboard), **how)
    show(given.as_json, result.to_dict, result.summary)
    if given.as_json:
        return
    note(f"written to {result.directory}/")
    if result.outcome == "finished" and isinstance(result.last, Evaluation):
        for command in _fitting_analyses(ModelSpec(name=config.model, options=config.options)):
            note(f"look inside: dia-analyze {command} --ckpt {result.directory}/model.safetensors")


def _started(given: FitOptions) -> "RunConfig":
    from dia_models import ModelInputError
    from dia_models.runs.configure import check_same
    from dia_models.runs.result import RunResult
    from dia_models.training.config import RunConfig

    if given.out is None:
        raise ModelInputError("out", "--resume needs the run's directory: --out DIR")
    asked = {"model": given.model, "data": given.data, "recipe_name": given.recipe, "keep_every": given.keep_every}
    config = RunConfig.read(given.out)
    check_same(config, **asked)
    if RunResult.read(given.out, config):
        note(f"{given.out} is finished: there is nothing left to train; this is its result")
    return config


def _new(given: FitOptions) -> "RunConfig":
    from dia_models import ModelInputError
    from dia_models.runs.configure import configure, fine_tuned
    from dia_models.settings import parse_settings

    settings = parse_settings(given.changes)
    more: Any = {key: getattr(given, key) for key in ("image_size", "channels", "seed", "keep_every")}
    if given.start_from is not None and given.model is None:
        return fine_tuned(given.start_from, given.data, given.recipe, settings, **more)
    if given.model is None or given.data is None:
        missing = "model" if given.model is None else "data"
        example = "for example --model cifar_resnet29_se --data digits"
        raise ModelInputError(missing, f"say which {missing} to train with, {example}")
    return configure(given.model, given.data, given.recipe, settings, start_from=given.start_from, **more)


def _new_folder(config: "RunConfig", held: ExitStack) -> Path:
    """Take the first default folder that is free; of several processes, the first does."""
    from dia_analysis.distributed import from_first
    from dia_analysis.results.output import hold_first, refuse_taken_folder

    paths = Out().paths(default_name("fit", [f"{config.model}-seed{config.seed}"], config.data))
    return from_first(lambda: held.enter_context(hold_first(paths, refuse_taken_folder)))


@contextmanager
def _kept(out: Path) -> Iterator[None]:
    """Say what an interrupt leaves."""
    from dia_models.training.files import CONFIG

    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:  # the second is Lightning's answer to an interrupt
        begun = (out / CONFIG).exists()
        kept = f"to continue: dia-train fit --resume --out {out}" if begun else "nothing was trained yet"
        raise KeyboardInterrupt(kept) from error


def _watchers(out: Path, tensorboard: bool) -> Iterator[Any]:
    """What watches a run; made when the data have been read, since Lightning takes seconds to import."""
    from dia_models.training.callbacks import TensorBoardLog
    from dia_models.training.progress import RunProgress

    yield RunProgress(progress_bar(), note)
    if tensorboard:
        yield TensorBoardLog(out)


def _fitting_analyses(spec: "ModelSpec") -> list[str]:
    """The commands that have something to show of a classifier: correlation takes two layers in a stage."""
    from dia_models.audit.counting import attention_layers

    return ["correlation"] if attention_layers(spec) > 1 else ["gradcam", "gradients"]
