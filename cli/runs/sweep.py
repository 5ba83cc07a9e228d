"""dia-train sweep."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cli.common import options as o
from cli.common.console import note, say, say_json, terminal_width
from cli.common.options import option
from cli.common.publish import check_one_process

if TYPE_CHECKING:
    from rich.table import Table

    from dia_analysis.errors import AnalysisInputError
    from dia_analysis.paper.sweeps import SweepResult
    from dia_models.sweeps.folder import SweepFolder
    from dia_models.sweeps.sweep import PlannedRun

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
    from dia_analysis.results.words import quantity
    from dia_models import ModelInputError

    check_one_process()
    folder = _planned(name, given)
    folder.find_data(given.data_dir, download=given.download, strict=given.strict)
    failed, result, lost = _train(folder, given)
    if given.as_json:
        say_json(result.to_dict())
    else:
        from figures import tables

        say(tables.text(result, terminal_width()).rstrip())
    if lost is not None:
        raise lost
    note(f"written to {folder.path / SUMMARY}")
    for directory, reason in failed.items():
        note(f"failed: {directory.name}: {reason}")
    if failed:
        message = f"{quantity(len(failed), 'run')} failed, as said above; the others are kept in {folder.path}"
        raise ModelInputError("sweep", message)
    note(f"beside the paper's numbers: dia-analyze tables --runs {folder.path}")


def _planned(name: str, given: SweepOptions) -> "SweepFolder":
    from dia_models.sweeps.folder import SweepFolder, check_executor, check_settings
    from dia_models.sweeps.sweep import load_sweep, parse_seeds

    plan, settings = load_sweep(name), o.settings(given.changes)
    check_settings(settings)
    check_executor(given.executor)
    seeds = range(plan.scale(given.scale).seeds) if given.seeds is None else parse_seeds(given.seeds)
    runs = plan.start_from_checkpoints(given.scale, plan.runs(given.scale, seeds, settings), given.start_from)
    return SweepFolder(plan, given.scale, runs, given.out or Path("dia-out") / f"{plan.name}-{given.scale}")


def _train(
    folder: "SweepFolder", given: SweepOptions
) -> tuple[dict[Path, str], "SweepResult", "AnalysisInputError | None"]:
    """Train what is left; gives what failed, the result, and the error if that cannot be written."""
    from dia_analysis.paper.sweeps import SweepResult

    try:
        with folder.prepared():
            board = Board(folder)
            try:
                how = {key: getattr(given, key) for key in ("executor", "device", "jobs", "data_dir", "strict")}
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


class Board:
    """A live table on a terminal, of how far every run is; elsewhere a line for every run that ends."""

    def __init__(self, folder: "SweepFolder"):
        from rich.console import Console
        from rich.live import Live

        self.folder = folder
        self.told = {run.directory for run in folder.runs if folder.has_ended(run)}
        if self.told:
            note(f"{len(self.told)} of {len(folder.runs)} runs are finished already")
        console = Console(stderr=True)
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        if self.live is not None:
            self.live.start()

    def __call__(self, failed: Mapping[Path, str]) -> None:
        """Show what has changed."""
        if self.live is not None:
            self.live.update(self._table(failed), refresh=True)
            return
        for run in self.folder.runs:
            if run.directory not in self.told and self.folder.has_ended(run):
                self.told.add(run.directory)
                note(f"{len(self.told)}/{len(self.folder.runs)} {run.directory}: {self._state(run, failed)}")

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self.live is not None:
            self.live.stop()

    def _table(self, failed: Mapping[Path, str]) -> "Table":
        from rich.table import Table

        seeds = list(dict.fromkeys(run.seed for run in self.folder.runs))
        table = Table("data", "backbone", "variant", *(f"seed {seed}" for seed in seeds), title=self.folder.sweep.title)
        cells: dict[tuple[str, str, str], list[str]] = {}
        for run in self.folder.runs:
            cells.setdefault((run.data, run.backbone, run.variant), []).append(self._state(run, failed))
        for place, states in cells.items():
            table.add_row(*place, *states)
        return table

    def _state(self, run: "PlannedRun", failed: Mapping[Path, str]) -> str:
        if self.folder.path / run.directory in failed:
            return "failed"
        if self.folder.has_ended(run):
            score = self.folder.score(run)
            return "nan" if score is None else f"{score:.2%}" if self.folder.sweep.metric.unit else f"{score:.2f}"
        epochs = len(self.folder.epochs(run))
        return f"{epochs}/{run.config.recipe.epochs}" if epochs else "·"
