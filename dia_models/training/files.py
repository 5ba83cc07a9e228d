"""Files of a run: complete or absent, and a clear word when one cannot be written."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dia_models.errors import ModelInputError
from dia_models.files import write_atomically
from dia_models.training.distributed import rank

CONFIG, RESULT, LOCK = "run.json", "result.json", ".lock"
LAST, METRICS = "last.ckpt", "metrics.csv"
MODEL, BEST_MODEL, EPOCH_FILE = "model.safetensors", "best.safetensors", "epoch-{:04d}.safetensors"


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
        then = f"what was saved before stays; resume the run in {path.parent} to continue"
        kept = then if started else "nothing was trained yet"
        raise NotWrittenError(f"{path.name} could not be written: {error.strerror or error}; {kept}") from error


def save(path: Path, content: bytes) -> None:
    """Replace a file of a run, at once or not at all. Raises NotWrittenError."""
    with writing(path):
        write_atomically(path, content)


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Keep other processes from training in a directory; one that was killed keeps nobody out.

    The directory is made, and removed again if nothing came into it. Of several processes, the first one does this.
    Raises ModelInputError if another process is training there, NotWrittenError if the directory cannot be written.
    """
    if rank():
        yield
        return
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    with writing(directory / CONFIG):
        lock = _acquire_lock(directory)
    try:
        yield
    finally:
        with suppress(OSError):  # some systems remove it with the lock
            Path(lock.lock_file).unlink()
        lock.release()
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _acquire_lock(directory: Path) -> FileLock:
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise ModelInputError(
                "out", f"{directory} is being written by another command; choose another folder"
            ) from error
        except FileNotFoundError:
            continue  # another process has just removed the directory, which it had made
        if Path(lock.lock_file).exists():
            return lock
        lock.release()  # the process that held it has just removed it


def leftover(path: Path) -> bool:
    """Whether a file is what an interrupted save left: never read, and no part of the run."""
    return re.fullmatch(r"\..+\.(json|csv|ckpt|safetensors)\.\d+", path.name) is not None
