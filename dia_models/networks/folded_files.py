"""A folded network in files: an ordinary checkpoint, or weights and what plain torch needs to know to load them."""

import json
from pathlib import Path

from safetensors.torch import save as save_tensors
from torch import nn

from dia_models.checkpoints.checkpoint import CheckpointInfo, save_checkpoint
from dia_models.errors import ModelInputError
from dia_models.files import write_atomically
from dia_models.networks.opened import OpenedNetwork
from dia_models.spec import Network
from dia_models.surgery.attach import AttachedAttention
from dia_models.surgery.folded import Folded

WEIGHTS, DESCRIPTION = "model.safetensors", "fold.json"


def save_folded(folder: Path, folded: Folded, opened: OpenedNetwork, data: str) -> None:
    """Write a folded network into a folder that exists.

    A network of this library becomes a checkpoint. Of any other, and where a constant gate still multiplies in a module
    of ours, `model.safetensors` has the weights and `fold.json` says which modules of the network are to be replaced
    before they are loaded: `identity` by `nn.Identity`, `scale` by one that multiplies by a constant, `gate` by one
    that gives a constant for each image; `affine` are the weights that norms without any gained.

    Args:
        folder: Where to.
        folded: The network after folding.
        opened: The network as it was opened.
        data: The data on which it was folded, for a checkpoint of a network that has none.

    Raises:
        ModelInputError: For attached attention of which a part was folded: how it is attached is not in the file.
    """
    model = folded.model
    if isinstance(model, Network) and not (folded.identity or folded.scale or folded.gate or folded.affine):
        save_checkpoint(folder / WEIGHTS, model, checkpoint_info(model, opened, data))
        return
    if any(isinstance(module, AttachedAttention) for module in model.modules()):
        raise ModelInputError(
            "model",
            "some of the attached attention is left, and a file cannot say how it is attached; fold all of it "
            "(max_accuracy_drop), or keep the network that fold_attention gives",
        )
    save_weights(folder / WEIGHTS, model)
    (folder / DESCRIPTION).write_text(json.dumps(_document(folded, opened), indent=2) + "\n", encoding="utf-8")


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the state dict of any network under its own names, at once or not at all; shared tensors several times."""
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write_atomically(path, save_tensors(weights))


def _document(folded: Folded, opened: OpenedNetwork) -> dict[str, object]:
    return {
        "schema": "dia.fold/1",
        "network": opened.source,
        "identity": folded.identity,
        "scale": folded.scale,
        "gate": folded.gate,
        "affine": folded.affine,
    }


def checkpoint_info(model: Network, opened: OpenedNetwork, data: str) -> CheckpointInfo:
    """What the checkpoint of a changed network says: as that before, but for scores that are no longer its own."""
    if opened.checkpoint is not None:
        return opened.checkpoint.info.model_copy(update={"model": model.spec, "metrics": {}})
    count = model.spec.num_classes or 0
    classes = opened.classes or tuple(map(str, range(count)))
    return CheckpointInfo(
        model=model.spec, data=data, classes=classes, preprocessing=opened.preprocessing, seed=opened.seed
    )
