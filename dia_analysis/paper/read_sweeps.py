"""The results of sweeps, from the files that hold them."""

import json
from collections.abc import Iterable
from pathlib import Path

from dia_analysis.errors import AnalysisInputError
from dia_analysis.paper.sweeps import SweepResult

SUMMARY = "sweep.json"
ACCEPTED = f"give a sweep's folder, or its {SUMMARY}"
LARGEST_BYTES = 64 * 2**20


def read_sweeps(runs: str | Path | Iterable[str | Path]) -> list[SweepResult]:
    """Read what sweeps found.

    Args:
        runs: A folder that `dia-train sweep` wrote to, a folder of these, or the file itself; or several.

    Returns:
        The results, by name.

    Raises:
        AnalysisInputError: If there is none, or a file is no result of a sweep.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else list(map(Path, runs))
    found = sorted({path for folder in folders for path in _summaries(folder)})
    if not found:
        raise AnalysisInputError(
            "runs",
            f"{', '.join(map(str, folders))}: no {SUMMARY} is there; dia-train sweep table04 --out DIR makes one",
        )
    return sorted(map(_read, found), key=lambda result: result.name)


def _summaries(folder: Path) -> list[Path]:
    """A result itself, or those in a folder: `sweep.json` of a sweep, or any name if someone has collected them."""
    if folder.is_file():
        return [folder]
    return [path for path in folder.rglob("*.json") if path.name == SUMMARY or path.parent == folder]


def _read(path: Path) -> SweepResult:
    if path.stat().st_size > LARGEST_BYTES:
        raise AnalysisInputError("runs", f"{path} is larger than 64 MiB, which no sweep's result is")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AnalysisInputError("runs", f"{path} is not JSON; {ACCEPTED}") from error
    if not isinstance(document, dict):
        raise AnalysisInputError("runs", f"{path} is not the result of a sweep; {ACCEPTED}")
    return SweepResult.from_dict(document)
