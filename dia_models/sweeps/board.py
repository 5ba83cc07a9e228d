"""How far the runs of a sweep are, for people to watch."""

from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from dia_models.sweeps.folder import SweepFolder


class Board:
    """A live table on a terminal, of how far every run is; elsewhere a line for every run that ends.

    It is what `SweepFolder.train` takes as `tick`; `say` is given the lines.
    """

    def __init__(self, folder: SweepFolder, say: Callable[[str], None]):
        self.folder, self.say = folder, say
        self.told = {run.directory for run in folder.runs if folder.has_ended(run)}
        if self.told:
            say(f"{len(self.told)} of {len(folder.runs)} runs are finished already")
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
                self.say(f"{len(self.told)}/{len(self.folder.runs)} {run.directory}: {self.folder.state(run, failed)}")

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self.live is not None:
            self.live.stop()

    def _table(self, failed: Mapping[Path, str]) -> Table:
        seeds = dict.fromkeys(run.seed for run in self.folder.runs)
        table = Table("data", "backbone", "variant", *(f"seed {seed}" for seed in seeds), title=self.folder.sweep.title)
        cells: dict[tuple[str, str, str], list[str]] = {}
        for run in self.folder.runs:
            cells.setdefault((run.data, run.backbone, run.variant), []).append(self.folder.state(run, failed))
        for place, states in cells.items():
            table.add_row(*place, *states)
        return table
