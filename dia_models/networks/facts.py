"""What is known of a network, in words."""

from dia_models.checkpoints.checkpoint import CheckpointInfo
from dia_models.networks.opened import OpenedNetwork
from dia_models.training.machine import in_words
from dia_models.words import quantity


def network_facts(network: OpenedNetwork, attention: str | None) -> dict[str, str]:
    """A network with the `attention` that it has, its training and its scores, by the names of the facts."""
    info, spec, shown = network.checkpoint and network.checkpoint.info, network.spec, network.preprocessing
    options = ", ".join(f"{key}={value}" for key, value in sorted(spec.options.items())) if spec else "not known"
    assumed = f"; assumed: {'; '.join(each)}" if (each := network.assumptions()) else ""
    scaled = f"; the center of images {shown.scaling}" if shown.scaling else ""
    return {
        "network": network.model_name,
        "options": options or "the defaults",
        "attention": attention or "not known",
        "parameters": f"{sum(parameter.numel() for parameter in network.model.parameters()):,}",
        "input": f"{shown.height}x{shown.width}, {quantity(len(shown.mean), 'channel')}{scaled}{assumed}",
        "classes": str(network.num_classes or "none"),
        "trained on": info.data if info else "not known",
        "training": _training(info) if info else f"not known; weights: {network.weights}",
        "precision in training": in_words(info.machine) if info else "not known",
        "accuracy in the checkpoint": (info and _metrics(info)) or "none",
        "SHA-256": network.sha256,
    }


def _training(info: CheckpointInfo) -> str:
    epochs = [quantity(int(info.recipe["epochs"]), "epoch")] if "epochs" in info.recipe else []
    kept = [] if info.epoch is None else [f"kept after epoch {info.epoch}"]
    return ", ".join([f"recipe {info.recipe.get('name', 'not known')}", *epochs, *kept, f"seed {info.seed}"])


def _metrics(info: CheckpointInfo) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{100 * value:.2f} %' if 'accuracy' in name else f'{value:.3f}'}"
        for name, value in info.metrics.items()
    )
