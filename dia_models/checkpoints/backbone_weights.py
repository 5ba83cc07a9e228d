"""Pretrained weights of a backbone, for a network that has attention besides."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from dia_models.attention import Attention
from dia_models.errors import ModelInputError

COUNTER = ".num_batches_tracked"
"""Ends the name of a batch norm's counter: fixed batch norms and old files do not have it, and nothing needs it."""


def load_backbone(model: nn.Module, weights: Mapping[str, Tensor], *, leave_out: Iterable[str] = ()) -> None:
    """Load weights by name into a network, or a part of one; attention that they do not have keeps its own.

    Made for torchvision's weights of the networks that are built of its blocks, and for the published U-ViT's.

    Args:
        model: What is loaded into, in place.
        weights: Tensors by their names in the model's state dict.
        leave_out: Modules that are not loaded, such as `fc`, the classifier of a network of other classes.

    Raises:
        ModelInputError: Unless all other tensors have the same names and shapes; it names the first that has not.
    """
    prefixes = tuple(f"{name}." for name in leave_out)
    given = {name: tensor for name, tensor in weights.items() if not name.startswith(prefixes)}
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(prefixes)}
    _check_names(expected.keys() - given.keys() - _attention_tensors(model), "are missing")
    _check_names(given.keys() - expected.keys(), "are not the network's")
    for name in given.keys() & expected.keys():
        theirs, ours = tuple(given[name].shape), tuple(expected[name].shape)
        if theirs != ours:
            raise ModelInputError("weights", f"{name!r} has shape {theirs}, the network's has {ours}")
    model.load_state_dict(given, strict=False)


def _check_names(names: set[str], fault: str) -> None:
    odd = [name for name in names if not name.endswith(COUNTER)]
    if odd:
        raise ModelInputError("weights", f"{len(odd)} tensors {fault}, the first is {min(odd)!r}")


def _attention_tensors(model: nn.Module) -> set[str]:
    return {
        f"{place}.{name}"
        for place, module in model.named_modules()
        if isinstance(module, Attention)
        for name in module.state_dict()
    }
