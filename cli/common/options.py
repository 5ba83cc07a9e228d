"""Options that mean the same in every command, one by one and in groups."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

T = TypeVar("T")


def each_checked(check: Callable[[Any], object]) -> Callable[[T], T]:
    """A callback for an option that checks each of its values while the command line is read, before slow imports."""

    def callback(given: T) -> T:
        for value in given if isinstance(given, list | tuple) else [] if given is None else [given]:
            check(value)
        return given

    return callback


def option(*names_and_help: str, check: Callable[[Any], object] | None = None, **limits: Any) -> Any:
    """An option by its names; the last text is its help, and each value is checked."""
    *names, text = names_and_help
    return typer.Option(*names, help=text, callback=None if check is None else each_checked(check), **limits)


def existing(argument: str) -> Callable[[Path], None]:
    """A check that something is at a path. Raises ModelInputError."""

    def check(path: Path) -> None:
        from dia_models import ModelInputError

        try:
            found = path.expanduser().exists()
        except (OSError, RuntimeError) as error:  # no permission, a name that is too long, no such user's home
            raise ModelInputError(argument, f"{path} cannot be read: {error}") from error
        if not found:
            raise ModelInputError(argument, f"there is no file or folder {path}")

    return check


def known_checkpoint(source: str, argument: str = "ckpt") -> None:
    """Check that a checkpoint is there. Raises ModelInputError, which names the argument."""
    from dia_models import ModelInputError
    from dia_models.checkpoints.files import locate_checkpoint

    try:
        locate_checkpoint(source)
    except ModelInputError as error:
        raise ModelInputError(argument, str(error)) from error


def _read_by(place: str) -> Callable[[str], None]:
    """A check by a function that is imported when it is needed, and raises ModelInputError."""

    def check(name: str) -> None:
        module, _, function = place.partition(":")
        getattr(import_module(module), function)(name)

    return check


known_model = _read_by("dia_models.factory:task_of")
known_recipe = _read_by("dia_models.training.recipe:load_recipe")
known_sweep = _read_by("dia_models.sweeps.sweep:load_sweep")


def known_device(name: str) -> None:
    """Check that a device is there. Raises ModelInputError."""
    if name not in ("auto", "cpu"):  # which always are, and asking costs torch's import
        from dia_models.training.device import choose_device

        choose_device(name)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"dia-analysis {version('dia-analysis')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
]
CKPT = option("--ckpt", "A checkpoint file, or the name of a bundled one.", check=known_checkpoint)
Ckpt = Annotated[str, CKPT]
Capture = Annotated[
    Path | None,
    option("--capture", "Instead of a checkpoint, a store that dia-analyze capture wrote.", check=existing("capture")),
]
Captures = Annotated[
    list[Path] | None,
    option("--capture", "Instead, a store that dia-analyze capture wrote; several times.", check=existing("capture")),
]
CKPTS = option("--ckpt", "A checkpoint file or the name of a bundled one; several times.", check=known_checkpoint)
Ckpts = Annotated[list[str] | None, CKPTS]
CkptsNeeded = Annotated[list[str], CKPTS]
Models = Annotated[
    list[str] | None,
    option("--model", "A network with random weights, as dia-train models lists it; several times.", check=known_model),
]
Data = Annotated[str | None, option("--data", "A data set or folder:PATH; by default what the network was trained on.")]
Images = Annotated[int | None, option("--images", "How many; by default 1,000, or all.", min=1)]
DataDir = Annotated[
    Path | None, option("--data-dir", "Where data sets are; else $DIA_DATA_DIR, else the user's cache.")
]
Download = Annotated[bool, option("--download", "Fetch the data set if it is missing.")]
OutFolder = Annotated[Path | None, option("--out", "Folder to write to; by default a new one in dia-out/.")]
Overwrite = Annotated[bool, option("--overwrite", "Replace an existing result folder.")]
Json = Annotated[bool, option("--json", "Print one JSON document instead of text.")]
Device = Annotated[str, option("--device", "auto, cpu, cuda, cuda:1 or mps.", check=known_device)]
Seed = Annotated[int, option("--seed", "Random seed.", min=0, max=2**31 - 1)]
BatchSize = Annotated[int, option("-b", "--batch-size", "Images at a time.", min=1)]
Workers = Annotated[int, option("-j", "--workers", "Threads that decode image files.", min=1)]
Set = Annotated[list[str] | None, option("--set", "key=value: an option of the model or a field of the recipe.")]
ModelSet = Annotated[list[str] | None, option("--set", "key=value: an option of the networks that --model names.")]
Strict = Annotated[bool, option("--strict", "An unreadable image is an error, not a warning.")]
Points = Annotated[list[str] | None, option("--points", "Modules to capture, such as 'layer*.se.gate'.")]
Layer = Annotated[str | None, option("--layer", "A module by name; by default the last block.")]
Trust = Annotated[bool, option("--trust", "Check whether the maps can be trusted.")]


@dataclass(frozen=True)
class DataOptions:
    """Which images, where they are, and how they are read and shown to networks."""

    data: Data = None
    images: Images = None
    data_dir: DataDir = None
    download: Download = False
    device: Device = "auto"
    seed: Seed = 0
    batch_size: BatchSize = 128
    workers: Workers = 2
    strict: Strict = False


@dataclass(frozen=True)
class AllImages(DataOptions):
    """The same for commands that take all images; a field without an option keeps its default."""

    images: None = None
    seed: int = 0
    batch_size: BatchSize = 256


@dataclass(frozen=True)
class ExplainedImages(DataOptions):
    """The images of gradcam."""

    images: Annotated[int | None, option("--images", "How many of the data set; by default 4.", min=1)] = None
    batch_size: BatchSize = 32


@dataclass(frozen=True)
class MeasuredImages(DataOptions):
    """The images of gradients."""

    images: Annotated[int | None, option("--images", "How many; by default 512, or all.", min=1)] = None
    image_size: Annotated[
        int | None, option("--image-size", "Resize image files to this many pixels, for --model.", min=8)
    ] = None


@dataclass(frozen=True)
class Explanation:
    """What gradcam explains, and how; as `dia_analysis.gradcam` takes it."""

    target: Annotated[str | None, option("--target", "A class by name or number; by default the predicted one.")] = None
    layer: Layer = None
    call: Annotated[
        int | None, option("--call", "Which application of a shared module, from 0; by default the last.")
    ] = None
    method: Annotated[str, option("--method", "gradcam, gradcam++, hirescam, layercam, ...")] = "gradcam"

    def options(self) -> dict[str, Any]:
        """The options of the functions that make maps."""
        return {"layer": self.layer, "call": self.call, "method": self.method}


@dataclass(frozen=True)
class NetworkOptions:
    """Checkpoints, and networks with random weights with their options."""

    ckpts: Ckpts = None
    models: Models = None
    changes: ModelSet = None


def settings(changes: Iterable[str] | None) -> dict[str, Any]:
    """What --set gives: key=value, the value as TOML if it is such, else as text. Raises ModelInputError."""
    return dict(map(_setting, changes or ()))


def _setting(change: str) -> tuple[str, Any]:
    import tomllib

    from dia_models import ModelInputError

    key, equals, value = change.partition("=")
    if not (key and equals and value):
        raise ModelInputError("set", f"{change!r} is not of the form key=value")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def check_source(
    ckpt: str | list[str] | None, capture: Path | list[Path] | None, data: DataOptions, others: Mapping[str, Any]
) -> None:
    """Refuse, as wrong usage, a command without a source of maps, or with two, or with options of the other one."""
    if bool(ckpt) == bool(capture):
        raise typer.BadParameter("give either a checkpoint or a store with --capture", param_hint="--ckpt")
    of_ckpt = {"--data": data.data, "--images": data.images, "--data-dir": data.data_dir, **others}
    for option, value in of_ckpt.items() if capture else ():
        if value is not None:
            raise typer.BadParameter("not with --capture: the store's images and layers are taken", param_hint=option)
