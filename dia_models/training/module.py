"""The training loop of every task: batches from memory, what Lightning modules share, what is left after an epoch."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dia_models.attention import Attention
from dia_models.data import MemoryImages, StreamedImages, shift_and_mirror
from dia_models.training.checkpoint_io import AtomicCheckpointIO
from dia_models.training.compiling import compiled
from dia_models.training.distributed import rank, size, summed
from dia_models.training.ema import moving_average
from dia_models.training.files import LAST, METRICS
from dia_models.training.metrics_file import MetricsFile
from dia_models.training.optimizers import make_optimizer, make_schedule
from dia_models.training.recipe import Recipe

Pixels = UInt8[Tensor, "shown height width channel"]
Labels = Int64[Tensor, "batch"]
Shared = Shaped[Tensor, "batch ..."]


class NotFiniteError(ArithmeticError):
    """A training step's loss is infinite or not a number. `epoch` counts from 1."""

    def __init__(self, epoch: int):
        super().__init__(f"the loss is not finite in epoch {epoch}")
        self.epoch = epoch


@dataclass(frozen=True)
class Batches:
    """Batches of images in memory: in a new order and augmented when training, both fixed by `seed`.

    The whole set lies on one device; a batch is one gather there, so no loader keeps the network waiting. Of several
    processes, each makes the whole batch, so that it is the one that a single process would make, and takes its share.
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
        for pixels, labels in self.whole(torch.Generator(self.images.pixels.device)):
            yield share(pixels), labels[rank() :: size()]

    def whole(self, generator: torch.Generator) -> Iterator[tuple[Pixels, Labels]]:
        """The batches of all processes together; what is random comes from `generator`, seeded."""
        device, count = self.images.pixels.device, len(self.images)
        generator.manual_seed(self.seed or 0)
        if self.seed is None:
            order = torch.arange(count, device=device)
        else:
            order = torch.randperm(count, generator=generator, device=device)
        for start in range(0, count, self.batch_size):
            chosen = order[start : start + self.batch_size]
            pixels = self.images.pixels[chosen]
            if self.augment != "none":
                pixels = shift_and_mirror(pixels, self.padding, self.augment == "crop_flip", generator)
            yield pixels, self.images.labels[chosen]


def share(pixels: Shared) -> Shared:
    """This process' part of a batch's images. One that gets none computes on another's, which is not counted."""
    return pixels[rank() :: size()] if rank() < len(pixels) else pixels[:1]


@dataclass(frozen=True)
class StreamedBatches:
    """Batches of image files that are decoded while the network computes.

    With a `seed` they are random parts of the images, in a new order.
    Of several processes, each decodes its share of every batch.
    """

    images: StreamedImages
    batch_size: int
    seed: int | None = None

    def __len__(self) -> int:
        """Batches: the last one may be smaller."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Pixels, Labels]]:
        order = torch.arange(len(self.images))
        if self.seed is not None:
            order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(self.seed))]
        whole = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        shown = [(batch[rank() :: size()] if rank() < len(batch) else batch[:1]).tolist() for batch in whole]
        for batch, (pixels, labels) in zip(whole, self.images.decoded(shown, self.seed), strict=True):
            yield pixels, labels[: len(batch[rank() :: size()])]


class Training(L.LightningModule):
    """What every kind of training shares: the recipe's optimizer, the moving average, and means over each epoch.

    A subclass says in `measured` what it sums over images beside their number; its steps add to `tally`. Of several
    processes, each has its share of a batch; the loss is that of the whole batch, divided by its size.
    """

    measured: tuple[str, ...] = ("loss",)

    def __init__(self, model: nn.Module, recipe: Recipe, images: int, seed: int):
        super().__init__()
        self.model, self.recipe, self.seed = model, recipe, seed
        self.average = moving_average(model, recipe.ema) if recipe.ema else None
        self.run_model = compiled(model) if recipe.compile else model.__call__
        self.steps_per_epoch = -(-images // recipe.batch_size)
        self.tally = self._nothing()  # this epoch's sums, the number of images last

    @property
    def network(self) -> nn.Module:
        """The network that is validated, tested and saved: the moving average of the trained one if there is one."""
        return self.model if self.average is None else self.average.module

    def on_train_epoch_start(self) -> None:
        """Whatever else draws random numbers in this epoch (dropout) also depends on seed and epoch alone."""
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch) + rank())
        self.tally = self._nothing()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the average after the step, and finish the epoch."""
        if self.average is not None:
            self.average.update_parameters(self.model)
        if self.trainer.is_last_batch:
            self._agree()
            self._log("train")

    def on_validation_epoch_start(self) -> None:
        """Count from nothing."""
        self.tally = self._nothing()

    def on_validation_epoch_end(self) -> None:
        """Give the means."""
        self._log("val")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The recipe's optimizer, with a learning rate for each step."""
        optimizer = make_optimizer(self.model, self.recipe)
        schedule = make_schedule(optimizer, self.recipe, self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def penalty(self) -> Float[Tensor, ""]:
        """What the attention modules add to the loss."""
        penalties = [p for a in self._attention() if (p := a.penalty()) is not None]
        return sum(penalties, start=next(self.model.parameters()).new_zeros(()))

    def count(self, sums: Float[Tensor, "sum"]) -> None:
        """Add a training step's sums over all processes. Raises NotFiniteError if its loss is not finite."""
        if not sums[0].isfinite():
            raise NotFiniteError(self.current_epoch + 1)
        self.tally = self.tally + sums

    def _attention(self) -> list[Attention]:
        return [module for module in self.model.modules() if isinstance(module, Attention)]

    def _nothing(self) -> Float[Tensor, "sum"]:
        return torch.zeros(len(self.measured) + 1, device=self.device)

    def _log(self, part: str) -> None:
        *sums, images = self.tally
        means = {f"{part}_{name}": value / images for name, value in zip(self.measured, sums, strict=True)}
        # Once an epoch, so that nothing is weighed; equal in all processes as it is.
        self.log_dict(means, on_step=False, on_epoch=True, sync_dist=size() > 1, batch_size=1)

    def _agree(self) -> None:
        """Give every process the mean of the batch norms' running statistics, each having seen its share of images."""
        for buffer in self.buffers() if size() > 1 else ():
            if buffer.is_floating_point():
                summed(buffer).div_(size())


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


def make_trainer(
    recipe: Recipe,
    directory: Path,
    device: torch.device,
    precision: str,
    callbacks: tuple[Callback, ...],
    *,
    validates: bool,
) -> L.Trainer:
    """A Lightning trainer that keeps a table of metrics and, after all callbacks, the last epoch's state."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its import sets it to tell tips
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if size() > 1 else 1
    return L.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=[device.index or 0] if device.type == "cuda" and size() == 1 else here,
        num_nodes=size() // here,
        strategy=DDPStrategy(**_own_buffers()) if size() > 1 else "auto",
        sync_batchnorm=device.type == "cuda" and size() > 1,
        use_distributed_sampler=False,
        limit_val_batches=None if validates else 0,
        max_epochs=recipe.epochs,
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
        gradient_clip_val=recipe.clip or None,
        callbacks=[MetricsFile(directory / METRICS), *callbacks, LastEpoch(directory / LAST)],
        plugins=[AtomicCheckpointIO()],
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _own_buffers() -> dict[str, Any]:
    """Each process keeps the running statistics of what it has seen. The option's name depends on torch's version."""
    known = signature(DistributedDataParallel).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch of each run."""
    return seed * 1_000_003 + epoch
