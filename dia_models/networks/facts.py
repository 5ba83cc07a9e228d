"""What is known of a network, in words."""

from dia_models.checkpoints.checkpoint import CheckpointInfo
from dia_models.networks.opened import OpenedNetwork
from dia_models.training.machine import in_words
from dia_models.words import quantity


def network_facts(network: OpenedNetwork, attention: str | None) -> dict[str, str]:
    """What it is and how it was trained, by the names of the facts; `attention` says what attention it has."""
    info = network.checkpoint.info if network.checkpoint else None
    options = network.spec.options if network.spec else {}
    given = ", ".join(f"{key}={value}" for key, value in sorted(options.items()))
    assumed = "; ".join(network.assumptions())
    facts = {
        "network": network.spec.name if network.spec else network.source,
        "options": (given or "the defaults") if network.spec else "",
        "attention": attention or "",
        "parameters": f"{sum(parameter.numel() for parameter in network.model.parameters()):,}",
        "input": input_text(network),
        "assumed": assumed,
        "classes": str(network.num_classes or "none"),
        **(_training(info) if info else {"weights": network.weights}),
        "SHA-256 of the file" if info else "SHA-256 of the weights": network.sha256,
    }
    return {name: fact for name, fact in facts.items() if fact}


def input_text(network: OpenedNetwork) -> str:
    """What images a network takes."""
    shown = network.preprocessing
    return f"{shown.height}x{shown.width}, {quantity(len(shown.mean), 'channel')}"


def _training(info: CheckpointInfo) -> dict[str, str]:
    epochs = [quantity(int(info.recipe["epochs"]), "epoch")] if "epochs" in info.recipe else []
    kept = [] if info.epoch is None else [f"kept after epoch {info.epoch}"]
    metrics = (
        f"{name.replace('_', ' ')} {f'{100 * value:.2f} %' if 'accuracy' in name else f'{value:.3f}'}"
        for name, value in info.metrics.items()
    )
    return {
        "trained on": info.data,
        "training": ", ".join([f"recipe {info.recipe.get('name', 'not known')}", *epochs, *kept, f"seed {info.seed}"]),
        "precision in training": in_words(info.machine),
        "accuracy in the checkpoint": ", ".join(metrics) or "none",
    }
