"""The network with which a checkpoint's training began: what training changed is told beside it only."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dia_models.checkpoints.checkpoint import Checkpoint, CheckpointInfo
from dia_models.factory import build_model
from dia_models.spec import Network
from dia_models.training.files import EPOCH_FILE


@dataclass(frozen=True)
class UntrainedNetwork:
    """A network before training, in evaluation mode, with the batch norms' statistics of that moment.

    `weights` says in words where its weights come from, and `exact` whether they are those with which the checkpoint's
    own training began.
    """

    model: nn.Module
    weights: str
    exact: bool


def untrained_network(checkpoint: Checkpoint) -> UntrainedNetwork:
    """The network before a checkpoint's training: the run's epoch 0 if it lies beside the checkpoint, else a new one.

    A new one is built with the run's seed, as the run did; with the same version of torch its weights are equal to the
    bit. Where the run started from another checkpoint, or is not recorded, it has other weights, and `weights` says so.
    Raises ModelInputError for a damaged epoch 0.
    """
    info = checkpoint.info
    kept = _kept_epoch_0(checkpoint.path.with_name(EPOCH_FILE.format(0)), info)
    if kept is not None:
        other = ", with the weights of the checkpoint that it started from" if "start_from" in info.recipe else ""
        return UntrainedNetwork(kept.build(), f"epoch 0 of the run, kept in {kept.path.name}{other}", True)
    model = _build_again(info)
    if "start_from" in info.recipe:
        return UntrainedNetwork(
            model, f"random, seed {info.seed}; the run itself started from another checkpoint, which is not here", False
        )
    if "epochs" not in info.recipe:
        return UntrainedNetwork(model, f"random, seed {info.seed}; how the network was trained is not recorded", False)
    return UntrainedNetwork(model, f"random, with the run's seed {info.seed}", True)


def has_statistics(model: nn.Module) -> bool:
    """Whether a network has batch norms that use statistics of the images that they have seen."""
    return any(isinstance(m, _BatchNorm) and m.running_mean is not None for m in model.modules())


def _kept_epoch_0(path: Path, info: CheckpointInfo) -> Checkpoint | None:
    """The epoch 0 of the run that a checkpoint is of, if it was kept."""
    if not path.is_file():
        return None
    kept = Checkpoint.read(path)
    found = kept.info
    same = (found.model, found.seed, found.recipe, found.epoch) == (info.model, info.seed, info.recipe, 0)
    return kept if same else None


def _build_again(info: CheckpointInfo) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(info.seed)
        return build_model(info.model).eval()
