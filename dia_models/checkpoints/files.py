"""Where checkpoints are: files of one's own, and those that come with the package. Needs no torch."""

from importlib.resources import files
from pathlib import Path

from dia_models.errors import ModelInputError, unknown

SUFFIX = ".safetensors"


def list_checkpoints() -> list[str]:
    """The names of the checkpoints that come with the package."""
    return sorted(
        entry.name.removesuffix(SUFFIX) for entry in _bundled_folder().iterdir() if entry.name.endswith(SUFFIX)
    )


def locate_checkpoint(source: str | Path, argument: str = "ckpt") -> Path:
    """The file of a checkpoint: `source` itself, or the bundled one of that name.

    Raises ModelInputError, naming the argument, if there is neither.
    """
    try:
        return _locate(source, argument)
    except (OSError, RuntimeError) as error:  # no permission, a name that is too long, no such user's home
        raise ModelInputError(argument, f"{source} cannot be read: {error}") from error


def _locate(source: str | Path, argument: str) -> Path:
    if not str(source):
        raise ModelInputError(argument, f"no name given; a checkpoint is one {SUFFIX} file")
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if str(source) in list_checkpoints():
        return _bundled_folder() / f"{source}{SUFFIX}"
    if path.exists():
        raise ModelInputError(argument, f"{source} is no file; a checkpoint is one {SUFFIX} file")
    if path.suffix or len(path.parts) > 1:
        raise ModelInputError(argument, f"there is no file {source}; give a {SUFFIX} file or a bundled name")
    raise unknown(
        argument,
        str(source),
        list_checkpoints(),
        listed_by="dia-train models --bundled",
        also=f"a path to a {SUFFIX} file",
    )


def _bundled_folder() -> Path:
    return Path(str(files("dia_models") / "bundled"))
