"""dia-train sweep."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cli.common import options as o
from cli.common.console import note, show, terminal_width
from cli.common.options import option

if TYPE_CHECKING:
    from dia_analysis.errors import AnalysisInputError
    from dia_analysis.paper.sweeps import SweepResult
    from dia_models.sweeps.folder import SweepFolder

SUMMARY = "sweep.json"
START_FROM = "A folder of checkpoints, each named for the network or classifier that starts."


@dataclass(frozen=True)
class SweepOptions:
    """Which runs of a sweep, and where they are trained."""

    seeds: Annotated[str | None, option("0-4 or 0,7; by default the scale's.")] = None
    scale: Annotated[str, option("paper, or laptop: smaller, for two cores.")] = "paper"
    jobs: Annotated[int | None, option("Runs at a time; by default one per GPU or core.", min=1)] = None
    executor: Annotated[str, option("local, or ray: on the Ray cluster that is running here.")] = "local"
    changes: Annotated[list[str] | None, option("key=value: a field of the recipe, for every run.", "--set")] = None
    start_from: Annotated[Path | None, option(START_FROM, "--from")] = None
    out: o.OutFolder = None
    data_dir: o.DataDir = None
    download: o.Download = False
    strict: o.Strict = False
    device: o.Device = "auto"
    as_json: o.Json = False


def run_sweep(name: str, given: SweepOptions) -> None:
    """Train every run of a sweep that is not finished, and compare the variants."""
    from dia_analysis.distributed import refuse_separate_processes
    from dia_analysis.results.words import quantity
    from dia_models import ModelInputError
    from dia_models.settings import parse_settings
    from dia_models.sweeps.folder import SweepFolder, check_executor
    from figures import tables

    refuse_separate_processes()
    check_executor(given.executor)
    where = {"out": given.out, "start_from": given.start_from}
    folder = SweepFolder.plan(name, given.scale, given.seeds, parse_settings(given.changes), **where)
    folder.find_data(given.data_dir, download=given.download, strict=given.strict)
    failed, result, lost = _train(folder, given)
    show(given.as_json, result.to_dict, lambda: tables.text(result, terminal_width()).rstrip())
    if lost is not None:
        raise lost
    note(f"written to {folder.path / SUMMARY}")
    for directory, reason in failed.items():
        note(f"failed: {directory.name}: {reason}")
    if failed:
        message = f"{quantity(len(failed), 'run')} failed, as said above; the others are kept in {folder.path}"
        raise ModelInputError("sweep", message)
    note(f"beside the paper's numbers: dia-analyze tables --runs {folder.path}")


def _train(
    folder: "SweepFolder", given: SweepOptions
) -> tuple[dict[Path, str], "SweepResult", "AnalysisInputError | None"]:
    """Train what is left; gives what failed, the result, and the error if that cannot be written."""
    from dia_analysis.paper.sweeps import SweepResult
    from dia_models.sweeps.board import Board

    how: Any = {key: getattr(given, key) for key in ("executor", "device", "jobs", "data_dir", "strict")}
    try:
        with folder.prepared():
            board = Board(folder, note)
            try:
                failed = folder.train(board, **how)
            finally:
                board.stop()
                result = SweepResult.from_dict(folder.to_dict())
                lost = _keep(result, folder.path / SUMMARY)
    except KeyboardInterrupt as interrupt:
        kept = f"what is trained is kept in {folder.path}; run the same command again to continue"
        raise KeyboardInterrupt(kept) from interrupt
    return failed, result, lost


def _keep(result: "SweepResult", path: Path) -> "AnalysisInputError | None":
    """Write the result; gives the error if it cannot be written, so that it is printed first."""
    from dia_analysis.errors import AnalysisInputError
    from dia_analysis.results.output import writing
    from dia_models.files import write_atomically

    try:
        with writing(path):
            write_atomically(path, json.dumps(result.to_dict(), indent=1).encode())
    except AnalysisInputError as error:
        return error
    return None
