"""What a checkpoint says of itself, in words."""

from torch import nn

from dia_models.checkpoints.checkpoint import Checkpoint, CheckpointInfo
from dia_models.training.machine import in_words
from dia_models.words import quantity


def facts(checkpoint: Checkpoint, model: nn.Module, attention: str) -> dict[str, str]:
    """A checkpoint's network, `model`, with the `attention` that it has, its training and its scores, by name."""
    info = checkpoint.info
    options = ", ".join(f"{key}={value}" for key, value in sorted(info.model.options.items()))
    return {
        "network": info.model.name,
        "options": options or "the defaults",
        "attention": attention,
        "parameters": f"{sum(each.numel() for each in model.parameters()):,}",
        "input": input_text(info),
        "classes": str(len(info.classes)),
        "trained on": info.data,
        "training": _training(info),
        "precision in training": in_words(info.machine),
        "accuracy in the checkpoint": _metrics(info) or "none",
        "SHA-256 of the file": checkpoint.sha256,
    }


def input_text(info: CheckpointInfo) -> str:
    """What images a network takes."""
    size = info.preprocessing
    return f"{size.height}x{size.width}, {quantity(info.model.in_channels, 'channel')}"


def _training(info: CheckpointInfo) -> str:
    epochs = [quantity(int(info.recipe["epochs"]), "epoch")] if "epochs" in info.recipe else []
    kept = [] if info.epoch is None else [f"kept after epoch {info.epoch}"]
    return ", ".join([f"recipe {info.recipe.get('name', 'not known')}", *epochs, *kept, f"seed {info.seed}"])


def _metrics(info: CheckpointInfo) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{100 * value:.2f} %' if 'accuracy' in name else f'{value:.3f}'}"
        for name, value in info.metrics.items()
    )
