"""Result directories: complete or absent, never overwritten unasked."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dia_analysis.errors import AnalysisInputError

MANIFEST = "manifest.json"


@contextmanager
def new_directory(path: Path, about: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder to write into; when the block ends well it becomes `path`, with a manifest written last.

    The manifest holds `about` and the SHA-256 of every file. If anything fails, `path` stays as it was.
    Raises AnalysisInputError if `path` exists (an empty folder does not count) and `overwrite` is false, or if
    it is no result directory, which is never replaced.
    """
    check_free(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.mkdir()
    try:
        yield draft
        _write_manifest(draft, about)
        put_in_place(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_free(path: Path, overwrite: bool) -> None:
    """Raise AnalysisInputError if results must not be written to `path`; call it before long work."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise AnalysisInputError("out", f"{path} exists; choose another directory, or replace it with --overwrite")
    if not (path / MANIFEST).is_file():
        raise AnalysisInputError("out", f"{path} holds something else than results, so it is not overwritten")


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file; NaN and infinity, which JSON does not have, are refused."""
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    hashes = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    write_json(folder / MANIFEST, {"schema": "dia.manifest/1", **about, "files": hashes})


def put_in_place(draft: Path, path: Path) -> None:
    """Give a finished folder its name; what had the name is removed."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.replace(old)
    draft.replace(path)
    shutil.rmtree(old, ignore_errors=True)
