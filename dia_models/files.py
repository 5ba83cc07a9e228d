"""Files that are complete or absent."""

import hashlib
import os
from pathlib import Path

from dia_models.errors import ModelInputError

LONGEST_NAME = 200  # bytes: file systems allow 255, and a file that is being written has a longer name


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by new content; a reader, or a crash at any moment, finds the old or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name if len(path.name.encode()) <= LONGEST_NAME else f"{_hash(path.name)}{path.suffix}"
    temporary = path.with_name(f".{name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def require_existing(path: Path, argument: str) -> None:
    """Raise ModelInputError, naming the argument, unless something is at the path."""
    try:
        found = path.expanduser().exists()
    except (OSError, RuntimeError) as error:  # no permission, a name that is too long, no such user's home
        raise ModelInputError(argument, f"{path} cannot be read: {error}") from error
    if not found:
        raise ModelInputError(argument, f"there is no file or folder {path}")
