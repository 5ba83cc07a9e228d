"""What the Lightning modules of all tasks share."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from dia_models.attention import Attention
from dia_models.errors import ModelInputError
from dia_models.training.batches import epoch_seed
from dia_models.training.distributed import all_reduce, rank, world_size
from dia_models.training.ema import moving_average
from dia_models.training.optimizers import make_optimizer, make_schedule
from dia_models.training.recipe import Recipe


class NotFiniteError(ArithmeticError):
    """A training step's loss is infinite or not a number. `epoch` counts from 1."""

    def __init__(self, epoch: int):
        super().__init__(f"the loss is not finite in epoch {epoch}")
        self.epoch = epoch


class Training(L.LightningModule):
    """What every kind of training shares: the recipe's optimizer, the moving average, and means over each epoch.

    A subclass says in `metrics` what it sums over images beside their number; its steps add to `tally`. Of several
    processes, each has its share of a batch; the loss is that of the whole batch, divided by its size.
    """

    metrics: tuple[str, ...] = ("loss",)

    def __init__(self, model: nn.Module, recipe: Recipe, images: int, seed: int):
        super().__init__()
        self.model, self.recipe, self.seed = model, recipe, seed
        self.average = moving_average(model, recipe.ema) if recipe.ema else None
        self.run_model = compile_forward(model) if recipe.compile else model.__call__
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
        return torch.zeros(len(self.metrics) + 1, device=self.device)

    def _log(self, part: str) -> None:
        *sums, images = self.tally
        means = {f"{part}_{name}": value / images for name, value in zip(self.metrics, sums, strict=True)}
        # Once an epoch, so that nothing is weighed; equal in all processes as it is.
        self.log_dict(means, on_step=False, on_epoch=True, sync_dist=world_size() > 1, batch_size=1)

    def _agree(self) -> None:
        """Give every process the mean of the batch norms' running statistics, each having seen its share of images."""
        for buffer in self.buffers() if world_size() > 1 else ():
            if buffer.is_floating_point():
                all_reduce(buffer).div_(world_size())


def compile_forward(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A compiled forward pass of `model`, which itself stays as it is: its weights, their names and its hooks.

    Raises ModelInputError where nothing can be compiled.
    """
    try:
        torch.compile(_trifle)(next(model.parameters()).detach()[:1])
    except Exception as error:  # what it raises depends on the device, the system and torch's version
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelInputError("set", f"compile=true needs a compiler that works here: {reason}") from error
    return torch.compile(model.forward)


def _trifle(x: Tensor) -> Tensor:
    return (x * 2 + 1).relu()
