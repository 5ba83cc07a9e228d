"""Result directories: complete or absent, written by one process at a time, never overwritten unasked."""

import csv
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from dia_analysis.distributed import from_first
from dia_analysis.errors import AnalysisInputError

T = TypeVar("T")
MANIFEST = "manifest.json"
LONGEST = 80  # bytes of a name that is a part of a file name
LONGEST_NAME = 200  # bytes: file systems allow 255, and drafts have longer names than what they become


class TakenError(AnalysisInputError):
    """Results must not be written to a path: something is there, or another process is writing it."""


@dataclass(frozen=True)
class Taken:
    """A result directory that no other process writes meanwhile: an empty draft beside it, to be filled."""

    path: Path
    draft: Path
    overwrite: bool = False

    @contextmanager
    def filled(self, about: Mapping[str, Any]) -> Iterator[Path]:
        """Give a folder to write into; when the block ends well it becomes `path`, with a manifest written last.

        The manifest holds `about` and the SHA-256 of every file. If anything fails, `path` stays as it was. Raises
        AnalysisInputError if the system cannot write, for instance because the disk is full.
        """
        with writing(self.path):
            yield self.draft
            _write_manifest(self.draft, about)
            _check_free(self.path, self.overwrite)  # nothing that came in the meantime is replaced
            put_in_place(self.draft, self.path.resolve())


@contextmanager
def new_directory(path: Path, about: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[Path]:
    """Take a directory and fill it in one go: see `take` and `Taken.filled`."""
    with take(path, overwrite=overwrite) as taken, taken.filled(about) as folder:
        yield folder


@contextmanager
def take(path: Path, *, overwrite: bool = False) -> Iterator[Taken]:
    """Take a directory for results before the work that they need. What is not filled leaves nothing behind.

    Raises TakenError if `path` exists (an empty folder does not count) and `overwrite` is false, if it is no result
    directory, which is never replaced, and if another process has taken it; AnalysisInputError if it cannot be written.
    """
    with hold(path):
        with writing(path):
            _check_free(path, overwrite)
            draft = draft_of(path.resolve())
            draft.mkdir()
        try:
            yield Taken(path, draft, overwrite)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Keep other processes from writing `path`; one that was killed holds nothing, and what it left is removed.

    The folders above `path` are made, and removed again if nothing came into them. Raises TakenError if another
    process holds it, AnalysisInputError if it cannot be written.
    """
    with writing(path):
        place = path.resolve()
        above = [folder for folder in place.parents if not folder.exists()]
        below = place.parents[len(above)]
        if not below.is_dir():
            raise AnalysisInputError("out", f"{path} could not be written: {below} is a file; choose another folder")
    try:
        with writing(path):
            lock = _locked(place, path)
        try:
            _clean_up(place)
            yield
        finally:
            with suppress(OSError):  # it may be gone with its folder; some systems remove it with the lock
                Path(lock.lock_file).unlink()
            lock.release()
    finally:
        for folder in above:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


@contextmanager
def hold_by_first(path: Path) -> Iterator[None]:
    """`hold` by the first of several processes; what it raises, all raise."""
    with ExitStack() as held:
        from_first(lambda: held.enter_context(hold(path)))
        yield


@contextmanager
def writing(path: Path, then: str = "choose another folder") -> Iterator[None]:
    """Turn an error of the system while `path` is written into an AnalysisInputError that says why, and what to do."""
    try:
        yield
    except OSError as error:
        raise AnalysisInputError("out", f"{path} could not be written: {error.strerror or error}; {then}") from error


def first_free(paths: Iterable[Path], enter: Callable[[Path], T]) -> T:
    """What `enter` gives for the first path that is not taken. Raises its TakenError if all are."""
    problem = None
    for path in paths:
        try:
            return enter(path)
        except TakenError as error:
            problem = error
    assert problem is not None
    raise problem


@contextmanager
def hold_first(paths: Iterable[Path], refuse: Callable[[Path], None]) -> Iterator[Path]:
    """`hold` the first path that is not taken: `refuse` raises TakenError for one that is. Raises the last of these."""
    with ExitStack() as held:

        def enter(path: Path) -> Path:
            held.enter_context(hold(path))
            refuse(path)
            return path

        yield first_free(paths, enter)


def refuse_taken_folder(path: Path) -> None:
    """Raise TakenError unless nothing is there, or an empty folder."""
    if not is_free(path):
        raise TakenError("out", f"{path} exists; choose another folder, or overwrite it")


def refuse_taken_file(path: Path, *, overwrite: bool) -> None:
    """Raise TakenError for a folder, and for a file unless it may be overwritten."""
    if path.is_dir() or (path.exists() and not overwrite):
        raise TakenError("out", f"{path} exists; choose another file, or overwrite it")


def draft_of(path: Path) -> Path:
    """A new name for what becomes `path` when it is complete; the holder of `path` removes what was left behind."""
    return _own(path, f"{secrets.token_hex(4)}.draft")


def put_in_place(draft: Path, path: Path) -> None:
    """Give a finished folder its name; what had the name is removed. An empty folder is filled, not replaced."""
    if draft.parent == path:
        for entry in sorted(draft.iterdir(), key=lambda entry: entry.name == MANIFEST):
            entry.replace(path / entry.name)
        draft.rmdir()
        return
    old = _own(path, "old")
    if path.exists() and not _is_empty(path):
        path.replace(old)
    try:
        draft.replace(path)
    except BaseException:
        if old.exists():
            old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file; NaN and infinity, which JSON does not have, are refused."""
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def file_name(text: str) -> str:
    """The text without what a file name should not have, and short; a long one ends in a hash that tells it apart."""
    name = re.sub(r"[^\w.-]+", "-", text).strip("-.") or "image"
    if len(name.encode()) <= LONGEST:
        return name
    return f"{name.encode()[: LONGEST - 9].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _locked(place: Path, given: Path) -> FileLock:
    while True:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_own(place, "lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise TakenError("out", f"{given} is being written by another command; choose another folder") from error
        except FileNotFoundError:
            continue  # another process has just removed the folder above, which it had made
        if Path(lock.lock_file).exists():
            return lock
        lock.release()  # the process that held it has just removed it


def is_free(path: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not path.exists() or _is_empty(path)


def _check_free(path: Path, overwrite: bool) -> None:
    if is_free(path):
        return
    if not overwrite:
        refuse_taken_folder(path)
    if not (path / MANIFEST).is_file():
        raise TakenError("out", f"{path} holds something else than results, so it is not overwritten")


def _clean_up(path: Path) -> None:
    """Remove what a killed process left; if it was replacing results, the old ones come back."""
    old = _own(path, "old")
    if old.exists() and not path.exists():
        old.replace(path)
    for entry in list(old.parent.iterdir()):
        if _is_own(path, entry) and entry.suffix != ".lock":
            shutil.rmtree(entry, ignore_errors=True)


def _is_empty(path: Path) -> bool:
    path = path.resolve()
    return path.is_dir() and all(_is_own(path, entry) for entry in path.iterdir())


def _is_own(path: Path, entry: Path) -> bool:
    return re.fullmatch(re.escape(_stem(path)) + r"(lock|old|[0-9a-f]{8}\.draft)", entry.name) is not None


def _own(path: Path, kind: str) -> Path:
    """Where something of the process that writes `path` is: in `path` if that is an empty folder, else beside it."""
    return (path if _is_empty(path) else path.parent) / f"{_stem(path)}{kind}"


def _stem(path: Path) -> str:
    name = path.name
    if len(name.encode()) > LONGEST_NAME:
        name = hashlib.sha256(name.encode()).hexdigest()
    return f".{name}."


def _write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    hashes = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    write_json(folder / MANIFEST, {"schema": "dia.manifest/1", **about, "files": hashes})
