"""A run's metrics for TensorBoard."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from dia_models.errors import ModelInputError
from dia_models.training.files import writing
from dia_models.training.metrics_file import MetricsFile

FOLDER = "tensorboard"


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
        self.path, self.open = directory / FOLDER, SummaryWriter
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
