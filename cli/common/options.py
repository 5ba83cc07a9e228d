"""Options that mean the same in every command, one by one and in groups."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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


def known_model(name: str) -> None:
    """Check a network's name. Raises ModelInputError."""
    from dia_models.factory import task_of

    task_of(name)


def known_device(name: str) -> None:
    """Check that a device is there. Raises ModelInputError."""
    if name not in ("auto", "cpu"):  # which always are, and asking costs torch's import
        from dia_models.training.device import choose_device

        choose_device(name)


def known_recipe(name: str) -> None:
    """Check a recipe's name. Raises ModelInputError."""
    from dia_models.training.recipe import load_recipe

    load_recipe(name)


def known_sweep(name: str) -> None:
    """Check a sweep's name. Raises ModelInputError."""
    from dia_models.sweeps.sweep import load_sweep

    load_sweep(name)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"dia-analysis {version('dia-analysis')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
]
CKPT = typer.Option(
    "--ckpt", help="A checkpoint file, or the name of a bundled one.", callback=each_checked(known_checkpoint)
)
Ckpt = Annotated[str, CKPT]
Capture = Annotated[
    Path | None,
    typer.Option(
        "--capture",
        help="Instead of a checkpoint, a store that dia-analyze capture wrote.",
        callback=each_checked(existing("capture")),
    ),
]
Captures = Annotated[
    list[Path] | None,
    typer.Option(
        "--capture",
        help="Instead, a store that dia-analyze capture wrote; several times.",
        callback=each_checked(existing("capture")),
    ),
]
CKPTS = typer.Option(
    "--ckpt",
    help="A checkpoint file or the name of a bundled one; several times.",
    callback=each_checked(known_checkpoint),
)
Ckpts = Annotated[list[str] | None, CKPTS]
CkptsNeeded = Annotated[list[str], CKPTS]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="A network with random weights, as dia-train models lists it; several times.",
        callback=each_checked(known_model),
    ),
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="A data set or folder:PATH; by default what the network was trained on."),
]
Images = Annotated[int | None, typer.Option("--images", min=1, help="How many; by default 1,000, or all.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where data sets are; else $DIA_DATA_DIR, else the user's cache."),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch the data set if it is missing.")]
OutFolder = Annotated[Path | None, typer.Option("--out", help="Folder to write to; by default a new one in dia-out/.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing result folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Device = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.", callback=each_checked(known_device)),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Random seed.")]
BatchSize = Annotated[int, typer.Option("-b", "--batch-size", min=1, help="Images at a time.")]
Workers = Annotated[int, typer.Option("-j", "--workers", min=1, help="Threads that decode image files.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value: an option of the model or a field of the recipe."),
]
ModelSet = Annotated[
    list[str] | None, typer.Option("--set", help="key=value: an option of the networks that --model names.")
]
Strict = Annotated[bool, typer.Option("--strict", help="An unreadable image is an error, not a warning.")]
Points = Annotated[list[str] | None, typer.Option("--points", help="Modules to capture, such as 'layer*.se.gate'.")]
Layer = Annotated[str | None, typer.Option("--layer", help="A module by name; by default the last block.")]
Trust = Annotated[bool, typer.Option("--trust", help="Check whether the maps can be trusted.")]


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

    images: Annotated[int | None, typer.Option("--images", min=1, help="How many of the data set; by default 4.")] = (
        None
    )
    batch_size: BatchSize = 32


@dataclass(frozen=True)
class MeasuredImages(DataOptions):
    """The images of gradients."""

    images: Annotated[int | None, typer.Option("--images", min=1, help="How many; by default 512, or all.")] = None
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=8, help="Resize images of files to this, for --model.")
    ] = None


@dataclass(frozen=True)
class Explanation:
    """What gradcam explains, and how; as `dia_analysis.gradcam` takes it."""

    target: Annotated[
        str | None, typer.Option("--target", help="A class by name or number; by default the predicted one.")
    ] = None
    layer: Layer = None
    call: Annotated[
        int | None, typer.Option("--call", help="Which application of a shared module, from 0; by default the last.")
    ] = None
    method: Annotated[str, typer.Option("--method", help="gradcam, gradcam++, hirescam, layercam, ...")] = "gradcam"

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
