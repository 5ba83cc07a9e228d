"""The training loop: batches from memory, a Lightning module, and files that survive a kill."""

import csv
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MeanMetric

from dia_models.attention import Attention
from dia_models.checkpoint import write_atomically
from dia_models.data import MemoryImages, Preprocessing, shift_and_mirror
from dia_models.recipe import Recipe

LAST, BEST, METRICS = "last.ckpt", "best.ckpt", "metrics.csv"
Pixels = UInt8[Tensor, "batch height width channel"]
Labels = Int64[Tensor, "batch"]


@dataclass(frozen=True)
class Batches:
    """Batches of images in memory: in a new order and augmented when training, both fixed by `seed`.

    The whole set lies on one device; a batch is one gather there, so no loader keeps the network waiting.
    """

    images: MemoryImages
    batch_size: int
    seed: int | None = None
    augment: str = "none"
    padding: int = 0

    def __len__(self) -> int:
        """Batches: the last one may be smaller."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Pixels, Labels]]:
        device = self.images.pixels.device
        generator = torch.Generator(device)
        count = len(self.images)
        if self.seed is None:
            order = torch.arange(count, device=device)
        else:
            order = torch.randperm(count, generator=generator.manual_seed(self.seed), device=device)
        for start in range(0, count, self.batch_size):
            chosen = order[start : start + self.batch_size]
            pixels = self.images.pixels[chosen]
            if self.augment != "none":
                pixels = shift_and_mirror(pixels, self.padding, self.augment == "crop_flip", generator)
            yield pixels, self.images.labels[chosen]


class TrainingData(L.LightningDataModule):
    """Training batches that depend on nothing but the seed and the epoch; validation batches in fixed order."""

    def __init__(self, train: MemoryImages, validation: MemoryImages | None, recipe: Recipe, seed: int):
        super().__init__()
        self.train, self.validation, self.recipe, self.seed = train, validation, recipe, seed

    def setup(self, stage: str) -> None:
        """Move the images to the device."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        self.train = self.train.to(device)
        self.validation = None if self.validation is None else self.validation.to(device)

    def train_dataloader(self) -> Batches:
        """This epoch's batches."""
        assert self.trainer is not None
        seed = epoch_seed(self.seed, self.trainer.current_epoch)
        return Batches(self.train, self.recipe.batch_size, seed, self.recipe.augment, self.recipe.padding)

    def val_dataloader(self) -> Batches | list[Any]:
        """The images held out from training."""
        return [] if self.validation is None else Batches(self.validation, self.recipe.batch_size)


class Training(L.LightningModule):
    """Cross-entropy classification with SGD, as a recipe says; attention modules may add to the loss."""

    def __init__(self, model: nn.Module, recipe: Recipe, preprocessing: Preprocessing, images: int, seed: int):
        super().__init__()
        self.model, self.recipe, self.preprocessing, self.seed = model, recipe, preprocessing, seed
        self.steps_per_epoch = -(-images // recipe.batch_size)
        self.train_loss, self.train_accuracy = MeanMetric(), MeanMetric()
        self.val_loss, self.val_accuracy = MeanMetric(), MeanMetric()

    def on_train_epoch_start(self) -> None:
        """Whatever else draws random numbers in this epoch (dropout) also depends on seed and epoch alone."""
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch))

    def training_step(self, batch: tuple[Pixels, Labels]) -> Float[Tensor, ""]:
        """The loss of one batch."""
        loss, hits = self._step(batch)
        loss = loss + sum(p for a in self._attention() if (p := a.penalty()) is not None)
        self._record("train_loss", self.train_loss, loss.detach().expand_as(hits))
        self._record("train_accuracy", self.train_accuracy, hits)
        return loss

    def validation_step(self, batch: tuple[Pixels, Labels]) -> None:
        """Measure one batch."""
        loss, hits = self._step(batch)
        self._record("val_loss", self.val_loss, loss.expand_as(hits))
        self._record("val_accuracy", self.val_accuracy, hits)

    def _attention(self) -> list[Attention]:
        return [module for module in self.model.modules() if isinstance(module, Attention)]

    def _step(self, batch: tuple[Pixels, Labels]) -> tuple[Float[Tensor, ""], Float[Tensor, "batch"]]:
        pixels, labels = batch
        logits = self.model(self.preprocessing(pixels))
        hits = (logits.detach().argmax(1) == labels).float()
        return F.cross_entropy(logits.float(), labels), hits

    def _record(self, name: str, mean: MeanMetric, values: Float[Tensor, "batch"]) -> None:
        mean.update(values)
        self.log(name, mean, on_step=False, on_epoch=True, batch_size=len(values))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD with the recipe's schedule: one learning rate per epoch (step) or per step (one_cycle)."""
        recipe = self.recipe
        undecayed = [p for attention in self._attention() for p in attention.without_weight_decay()]
        decayed = [p for p in self.model.parameters() if not any(p is other for other in undecayed)]
        groups: list[dict[str, Any]] = [
            {"params": decayed},
            *([{"params": undecayed, "weight_decay": 0.0}] if undecayed else []),
        ]
        optimizer = torch.optim.SGD(
            groups,
            recipe.learning_rate,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        if recipe.schedule == "step":
            epochs = [round(fraction * recipe.epochs) for fraction in recipe.milestones]
            stepwise = torch.optim.lr_scheduler.MultiStepLR(optimizer, epochs, recipe.decay)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": stepwise, "interval": "epoch"}}
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            recipe.learning_rate,
            total_steps=recipe.epochs * self.steps_per_epoch,
            pct_start=0.25,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class MetricsFile(Callback):
    """One CSV row per epoch. The rows are part of the training state, so a resumed run loses and doubles none."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.started = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to the rows of the epoch that is resumed."""
        self.rows = state_dict["rows"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add this epoch's row and replace the file."""
        assert isinstance(pl_module, Training)
        row = {"epoch": trainer.current_epoch, "learning_rate": trainer.optimizers[0].param_groups[0]["lr"]}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows = [*self.rows, row | {"seconds": round(time.perf_counter() - self.started, 3)}]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue().encode())


class KeptEpochs(Callback):
    """Hands the number of finished epochs to `save` before the first epoch, after each `every`-th and the last.

    Lightning saves the training state after it: a run killed in between repeats the epoch and saves the same again.
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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Training states are complete or absent, and are read without executing anything in them."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write beside the target, then rename."""
        assert storage_options is None
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".saving-") as folder:
            torch.save(checkpoint, Path(folder) / target.name)
            (Path(folder) / target.name).replace(target)


def make_trainer(
    recipe: Recipe, directory: Path, device: torch.device, precision: str, callbacks: tuple[Callback, ...]
) -> L.Trainer:
    """A Lightning trainer that keeps the last epoch's state, the best weights and a table of metrics."""
    kept = partial(
        ModelCheckpoint,
        dirpath=directory,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
        save_top_k=1,
    )
    keep = [kept(filename=Path(LAST).stem)]
    if recipe.validation:
        best = kept(filename=Path(BEST).stem, monitor="val_accuracy", mode="max", save_weights_only=True)
        keep.append(best)
    return L.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        max_epochs=recipe.epochs,
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
        callbacks=[MetricsFile(directory / METRICS), *keep, *callbacks],
        plugins=[AtomicCheckpointIO()],
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch of each run."""
    return seed * 1_000_003 + epoch
