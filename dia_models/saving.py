"""Files of a run: complete or absent, and a clear word when one cannot be written."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dia_models.files import write_atomically

CONFIG, RESULT = "run.json", "result.json"
MODEL, BEST_MODEL, KEPT = "model.safetensors", "best.safetensors", "epoch-{:04d}.safetensors"


class NotWrittenError(OSError):
    """A file of a run cannot be written, for instance because the disk is full. What was saved before stays."""

    argument = "out"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the system while `path` is written into a NotWrittenError that says how to go on."""
    try:
        yield
    except OSError as error:
        started = (path.parent / CONFIG).exists()
        then = f"what was saved before stays; to continue: dia-train fit --resume --out {path.parent}"
        raise NotWrittenError(
            f"{path} could not be written: {error.strerror or error}; {then if started else 'nothing was trained yet'}"
        ) from error


def save(path: Path, content: bytes) -> None:
    """Replace a file of a run, at once or not at all. Raises NotWrittenError."""
    with writing(path):
        write_atomically(path, content)


def leftover(path: Path) -> bool:
    """Whether a file is what an interrupted save left: never read, and no part of the run."""
    return re.fullmatch(r"\..+\.(json|csv|ckpt|safetensors)\.\d+", path.name) is not None
