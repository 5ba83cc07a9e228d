"""How far a training run is: a bar and a line per epoch."""

import time
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.progress import Progress, TaskID

TOLD = (
    ("train_loss", "loss", ".3f"),
    ("train_accuracy", "accuracy", ".2%"),
    ("val_accuracy", "validation accuracy", ".2%"),
)


class RunProgress(Callback):
    """A bar of the whole run with images per second (the task's field `detail`), and a line for each epoch."""

    def __init__(self, bar: Progress, say: Callable[[str], None]):
        self.bar, self.say = bar, say
        self.task: TaskID | None = None
        self.images = 0
        self.started = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the bar in the first epoch, behind those that a resumed run has done."""
        self.images, self.started = 0, time.perf_counter()
        epochs, batches = int(trainer.max_epochs or 0), int(trainer.num_training_batches)
        if self.task is None:
            done = trainer.current_epoch * batches
            self.task = self.bar.add_task("", total=epochs * batches, completed=done, detail="")
            self.bar.start()
        self.bar.update(self.task, description=f"epoch {trainer.current_epoch + 1}/{epochs}")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance it."""
        self.images += len(batch[1]) * trainer.world_size
        assert self.task is not None
        self.bar.update(self.task, advance=1, detail=f"{self._rate():.0f} images/s")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's line; above the bar, where there is one."""
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [f"{words} {seen[name]:{form}}" for name, words, form in TOLD if name in seen]
        parts.append(f"{self._rate():.0f} images/s")
        self.say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {', '.join(parts)}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the terminal as it was."""
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self.on_train_end(trainer, pl_module)

    def _rate(self) -> float:
        return self.images / (time.perf_counter() - self.started)
