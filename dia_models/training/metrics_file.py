"""The table of a run: one CSV row per epoch."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from dia_models.training.files import save


def seconds(path: Path) -> float | None:
    """How long all epochs in a table took together, before and after interruptions; None if there is no table."""
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return round(sum(float(row["seconds"]) for row in csv.DictReader(file)), 3)


class MetricsFile(Callback):
    """One CSV row per epoch. The rows are part of the training state, so a resumed run loses and doubles none.

    `learning_rate` is that of the epoch's first step, `seconds` the time of the epoch with its validation.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.started = self.rate = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to the rows of the epoch that is resumed."""
        self.rows = state_dict["rows"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self.started, self.rate = time.perf_counter(), trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add this epoch's row and replace the file."""
        row = {"epoch": trainer.current_epoch, "learning_rate": self.rate}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows = [*self.rows, row | {"seconds": round(time.perf_counter() - self.started, 3)}]
        if trainer.is_global_zero:
            save(self.path, self._text().encode())

    def _text(self) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()
