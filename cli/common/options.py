"""Options that mean the same in every command, one by one and in groups."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Check = Callable[[Any, str], object]  # of a value, and of what the user calls the option or argument


def option(text: str, *names: str, check: Check | None = None, **limits: Any) -> Any:
    """An option with its help, named as the parameter if no names are given; each value is checked."""
    return typer.Option(..., *names, help=text, callback=check and _each_checked(check), **limits)


def argument(text: str, *, check: Check | None = None, **shown: Any) -> Any:
    """A positional argument with its help; each value is checked."""
    return typer.Argument(help=text, callback=check and _each_checked(check), **shown)


def _each_checked(check: Check) -> Callable[[typer.CallbackParam, Any], Any]:
    """A callback that checks values while the command line is read, before slow imports."""

    def callback(parameter: typer.CallbackParam, given: Any) -> Any:
        positional = parameter.param_type_name == "argument"
        named = str(parameter.metavar or parameter.name).strip("[].").upper()
        name = named if positional else parameter.opts[-1].lstrip("-")
        for value in given if isinstance(given, list | tuple) else [] if given is None else [given]:
            check(value, name)
        return given

    return callback


def _late(module: str, function: str, *, named: bool = False) -> Check:
    """A check by a function that is imported when it is needed; it is told what the value is called if `named`."""

    def check(value: Any, name: str) -> None:
        getattr(import_module(module), function)(value, *([name] if named else []))

    return check


existing = _late("dia_models.files", "require_existing", named=True)
known_checkpoint = _late("dia_models.checkpoints.files", "locate_checkpoint", named=True)
known_model = _late("dia_models.factory", "task_of")
known_network = _late("dia_models.networks.named", "require_network", named=True)
existing_weights = _late("dia_models.networks.named", "require_weights", named=True)
known_recipe = _late("dia_models.training.recipe", "load_recipe")
known_sweep = _late("dia_models.sweeps.sweep", "load_sweep")


def known_device(name: str, _: str) -> None:
    """Check that a device is there. Raises ModelInputError."""
    if name not in ("auto", "cpu"):  # which always are, and asking costs torch's import
        from dia_models.training.device import choose_device

        choose_device(name)


CKPTS = option("A checkpoint file or the name of a bundled one; several times.", "--ckpt", check=known_checkpoint)
MODEL = "[NAME=]MODEL, several times: a network of ours, timm:X, torchvision:X, hf-hub:ORG/X, or file.py:function."
WEIGHTS = "[NAME:]FILE: the state dict of a network that --model names; else its weights are random."
DATA = "A data set, folder:PATH, labels:FILE.csv or file.py:function; by default what the checkpoint was trained on."
ONE = "; NAME:VALUE for one network."
STORE = "a store that dia-analyze capture wrote"
Capture = Annotated[Path | None, option(f"Instead of a network, {STORE}.", check=existing)]
Captures = Annotated[list[Path] | None, option(f"Instead, {STORE}; several times.", "--capture", check=existing)]
Many = list[str] | None
DataDir = Annotated[Path | None, option("Where data sets are; else $DIA_DATA_DIR, else the user's cache.")]
Download = Annotated[bool, option("Fetch the data set if it is missing.")]
OutFolder = Annotated[Path | None, option("Folder to write to; by default a new one in dia-out/.")]
Overwrite = Annotated[bool, option("Replace an existing result folder.")]
Json = Annotated[bool, option("Print one JSON document instead of text.", "--json")]
Device = Annotated[str, option("auto, cpu, cuda, cuda:1 or mps.", check=known_device)]
Seed = Annotated[int, option("Random seed.", min=0, max=2**31 - 1)]
BatchSize = Annotated[int, option("Images at a time.", "-b", "--batch-size", min=1)]
Workers = Annotated[int, option("Threads that decode image files.", "-j", "--workers", min=1)]
Set = Annotated[list[str] | None, option("key=value: an option of the model or a field of the recipe.", "--set")]
Strict = Annotated[bool, option("An unreadable image is an error, not a warning.")]
Points = Annotated[list[str] | None, option("Points by pattern; kind:channel; features:PATTERN for modules' outputs.")]
ImagePaths = Annotated[
    list[Path] | None, argument("Image files, and folders of them.", metavar="[IMAGES]...", check=existing)
]
ExplainedClass = Annotated[str | None, option("A class by name or number; by default the predicted one.")]
Layer = Annotated[str | None, option("A module by name; by default the last block.")]
Trust = Annotated[bool, option("Check whether the maps can be trusted.")]


@dataclass(frozen=True)
class DataOptions:
    """Which images, where they are, and how they are read and shown to networks."""

    data: Annotated[str | None, option(DATA)] = None
    images: Annotated[int | None, option("How many; by default 1,000, or all.", min=1)] = None
    data_dir: DataDir = None
    download: Download = False
    device: Device = "auto"
    seed: Seed = 0
    batch_size: BatchSize = 128
    workers: Workers = 2
    strict: Strict = False
    groups: Annotated[Path | None, option("A CSV file of images and their patients.", check=existing)] = None
    group_pattern: Annotated[
        str | None, option("The patient in an image's name, such as '^[0-9]+' or 'p([0-9]+)'.")
    ] = None
    uncertain: Annotated[
        Literal["leave-out", "positive", "negative"], option("What labels of -1 in a table count as.")
    ] = "leave-out"


@dataclass(frozen=True)
class AllImages(DataOptions):
    """The same for commands that take all images; a field without an option keeps its default."""

    images: None = None
    seed: int = 0
    batch_size: BatchSize = 256


@dataclass(frozen=True)
class ExplainedImages(DataOptions):
    """The images of gradcam."""

    images: Annotated[int | None, option("How many of the data set; by default 4.", min=1)] = None
    batch_size: BatchSize = 32


@dataclass(frozen=True)
class AttentionOptions:
    """What is drawn of the maps."""

    layers: Annotated[list[str] | None, option("Points to look at, such as 'blocks.1?*'; by default all.")] = None
    heads: Annotated[str | None, option("Heads to average, from 0, such as 0,2; by default all.")] = None
    query: Annotated[str | None, option("Whose attention: class, mean, or X,Y in pixels from the upper left.")] = None
    rollout: Annotated[bool, option("Add attention rolled out through all layers.")] = False


@dataclass(frozen=True)
class MeasuredImages(DataOptions):
    """The images of gradients."""

    images: Annotated[int | None, option("How many; by default 512, or all.", min=1)] = None


@dataclass(frozen=True)
class Explanation:
    """What gradcam explains, and how; as `dia_analysis.gradcam` takes it."""

    target: ExplainedClass = None
    layer: Layer = None
    call: Annotated[int | None, option("Which application of a shared module, from 0; by default the last.")] = None
    method: Annotated[str, option("gradcam, rollout, gradient_rollout, gradcam++, layercam, ...")] = "gradcam"


@dataclass(frozen=True)
class NetworkOptions:
    """Checkpoints, and networks that --model names: how these are made, and the images that they expect."""

    ckpts: Annotated[Many, CKPTS] = None
    models: Annotated[Many, option(MODEL, "--model", check=known_network)] = None
    weights: Annotated[Many, option(WEIGHTS, check=existing_weights)] = None
    pretrained: Annotated[bool, option("Fetch the weights that timm, torchvision or the hub has of --model.")] = False
    changes: Annotated[Many, option(f"key=value: what --model is made with{ONE}", "--set")] = None
    num_classes: Annotated[Many, option(f"How many classes --model is made for{ONE}")] = None
    image_size: Annotated[Many, option(f"Pixels, or height,width{ONE}")] = None
    mean: Annotated[Many, option(f"Subtracted from values of 0 to 1: one number, or one a channel{ONE}")] = None
    std: Annotated[Many, option(f"What values are divided by, likewise{ONE}")] = None
    channels: Annotated[Many, option(f"Channels of the images{ONE}")] = None
    crop: Annotated[Many, option(f"The share of the scaled image's sides that is seen, such as 0.875{ONE}")] = None
    classes: Annotated[Many, option(f"A file with the outputs' names in order, one a line{ONE}")] = None


@dataclass(frozen=True)
class GiniOptions:
    """Which maps importance is measured of, and by which rows."""

    points: Points = None
    hidden: Annotated[bool, option("Capture DIA-LSTM's hidden state h (its gate).")] = False
    rows: Annotated[
        Literal["centred", "raw", "vector"], option("Channels minus their means, raw channels, or one vector an image.")
    ] = "centred"


@dataclass(frozen=True)
class GradientOptions:
    """Where and how gradients are measured, besides of which networks and on which images."""

    runs: Annotated[
        list[Path] | None, option("The folder of a dia-train fit run; several times.", "--run", check=existing)
    ] = None
    every_epoch: Annotated[bool, option("All epochs that the runs kept (dia-train fit --keep-every).")] = False
    points: Annotated[list[str] | None, option("Modules that count as stages, such as 'layer*'.")] = None
    per_block: Annotated[bool, option("Also at the output of every block.")] = False
    mode: Annotated[
        Literal["training", "evaluation"], option("Batch norm with the batch's statistics, or with its stored ones.")
    ] = "training"
    draws: Annotated[int, option("Seeds of random weights for --model, from --seed on.", min=1)] = 5


@dataclass(frozen=True)
class AblationOptions:
    """Which maps are replaced, by what, and how; as `dia_analysis.measure_ablation` takes it."""

    replace_by: Annotated[Many, option("mean, resample, resample-half, constant or one; by default all of them.")] = (
        None
    )
    layers: Annotated[
        Many,
        option("What is replaced together: all, a stage (2), a layer (2.3), each; by default the stages, and all."),
    ] = None
    points: Points = None
    fit_images: Annotated[int | None, option("Training images for the means; by default as --images.", min=1)] = None
    freeze_others: Annotated[bool, option("The other layers keep the untouched network's maps.")] = False
    state: Annotated[bool, option("What reads a map later, such as an LSTM's next step, sees the new one too.")] = False
    recalibrate_bn: Annotated[bool, option("New batch-norm statistics for each replacement.")] = False
    swap: Annotated[bool, option("Replace maps by other layers', too; by itself where it takes few passes.")] = False


@dataclass(frozen=True)
class FoldOptions:
    """Which gates may be folded, and what that may cost; as `dia_models.fold_attention` takes it."""

    max_accuracy_drop: Annotated[
        float, option("By how much the accuracy may fall: 0.005 is half a point.", min=0, max=1)
    ] = 0.005
    layers: Annotated[Many, option("What may be folded: a stage (2), a layer (2.3); by default all.")] = None
    rounds: Annotated[int, option("How many times each network is timed; 6 or more.", min=6)] = 20


@dataclass(frozen=True)
class ShareOptions:
    """Which modules are shared, and whether the result is trained."""

    modules: Annotated[str | None, option("A pattern of modules, as 'layer*.se'; by default what makes gates.")] = None
    epochs: Annotated[int, option("Fine-tune the shared and the individual network, and compare.", min=0)] = 0


@dataclass(frozen=True)
class CostOptions:
    """How networks are timed."""

    rounds: Annotated[int, option("How many times each network is timed; 6 or more.", min=6)] = 20
    device: Device = "auto"
    seed: Seed = 0
    batch_size: BatchSize = 32


def check_source(
    networks: NetworkOptions,
    capture: Path | list[Path] | None,
    data: DataOptions,
    others: Mapping[str, Any],
    runs: list[Path] | None = None,
) -> None:
    """Refuse, as wrong usage, a command without a source of maps, or with two, or with options of the other one."""
    if bool(networks.ckpts or networks.models or runs) == bool(capture):
        raise typer.BadParameter("give either networks or a store with --capture", param_hint="--ckpt")
    of_networks = {"--data": data.data, "--images": data.images, "--data-dir": data.data_dir, **others}
    for option, value in of_networks.items() if capture else ():
        if value is not None:
            raise typer.BadParameter("not with --capture: the store's images and layers are taken", param_hint=option)
