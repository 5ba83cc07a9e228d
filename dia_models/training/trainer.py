"""The Lightning trainer of every run."""

import logging
import os
from inspect import signature
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from dia_models.training.callbacks import LastEpoch, MetricsFile
from dia_models.training.checkpoint_io import AtomicCheckpointIO
from dia_models.training.distributed import world_size
from dia_models.training.files import LAST, METRICS
from dia_models.training.recipe import Recipe


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
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if world_size() > 1 else 1
    return L.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=[device.index or 0] if device.type == "cuda" and world_size() == 1 else here,
        num_nodes=world_size() // here,
        strategy=DDPStrategy(**_own_buffers()) if world_size() > 1 else "auto",
        sync_batchnorm=device.type == "cuda" and world_size() > 1,
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
