"""What is kept of each epoch: a row of metrics, the best and other networks, the training state."""

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint

from dia_models.errors import ModelInputError
from dia_models.training.files import save, writing

TENSORBOARD = "tensorboard"


class KeptEpochs(Callback):
    """Hands the number of finished epochs to `save` before the first epoch, after each `every`-th and the last.

    The training state is saved after it: a run killed in between repeats the epoch and saves the same again.
    """

    def __init__(self, every: int, save: Callable[[int], None]):
        self.every, self.save = every, save

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the network as it starts; a run that is resumed has it already."""
        if trainer.current_epoch == 0:
            self.save(0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep this epoch's network if it is its turn."""
        finished = trainer.current_epoch + 1
        if finished % self.every == 0 or finished == trainer.max_epochs:
            self.save(finished)


class BestEpoch(Callback):
    """Calls `save` after each epoch whose network is better on the validation images than all before it.

    `metric` is what is compared; of a loss, less is better, of anything else more.
    """

    def __init__(self, save: Callable[[], None], metric: str):
        self.save, self.metric = save, metric
        self.best: float | None = None

    @property
    def _key(self) -> str:
        return self.metric.removeprefix("val_")

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {self._key: self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to the best of the epochs before the one that is resumed."""
        self.best = state_dict[self._key]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare this epoch's network."""
        value = float(trainer.callback_metrics[self.metric])
        if self.best is None or (value < self.best if self._key == "loss" else value > self.best):
            self.best = value
            self.save()


class LastEpoch(Checkpoint):
    """Saves the training state after each epoch. Lightning calls it after all other callbacks, whose state is in it."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save it."""
        trainer.save_checkpoint(self.path)


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


def training_seconds(path: Path) -> float | None:
    """How long all epochs in a metrics file took together, also before interruptions; None if there is no file."""
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return round(sum(float(row["seconds"]) for row in csv.DictReader(file)), 3)


class TensorBoardLog(Callback):
    """Writes each row of the metrics file, as it is added, to the folder `tensorboard` of a run.

    Epochs that a resumed run repeats replace those of before. Raises ModelInputError if tensorboard is not installed.
    """

    def __init__(self, directory: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ModelInputError(
                "tensorboard", "tensorboard is not installed; pip install 'dia-analysis[tracking]'"
            ) from error
        self.path, self.open = directory / TENSORBOARD, SummaryWriter
        self.writer: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a file of events."""
        if trainer.is_global_zero:
            with writing(self.path):
                self.writer = self.open(str(self.path), purge_step=trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's row."""
        if self.writer is None:
            return
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # is set later than in __init__
        row = next(callback for callback in callbacks if isinstance(callback, MetricsFile)).rows[-1]
        with writing(self.path):
            for name, value in row.items():
                self.writer.add_scalar(name, value, row["epoch"])
            self.writer.flush()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the file."""
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the file."""
        self._close()

    def _close(self) -> None:
        if self.writer is not None:
            self.writer.close()
