"""Files of a run: complete or absent, and a clear word when one cannot be written."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from dia_models.checkpoint import write_atomically
from dia_models.errors import ModelInputError

CONFIG, RESULT = "run.json", "result.json"


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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Training states are complete or absent."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write beside the target, then rename. Raises NotWrittenError."""
        assert storage_options is None
        content = io.BytesIO()  # torch.save to a file hides why it failed
        torch.save(checkpoint, content)
        save(Path(path), content.getvalue())

    def load_checkpoint(self, path: str | os.PathLike[str], *_: Any, **__: Any) -> dict[str, Any]:
        """Read one, executing nothing in it. Raises ModelInputError for a damaged file."""
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return checkpoint
        except Exception as error:  # what a damaged file raises depends on where the damage is
            raise ModelInputError("resume", f"{path} is damaged; start again in another directory") from error
