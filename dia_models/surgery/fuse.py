"""Faster inference: batch norms computed as part of the convolutions before them."""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dia_models.errors import ModelInputError
from dia_models.spec import Network

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def fuse_for_inference(model: AnyModule) -> AnyModule:
    """A copy of a network whose batch norms are folded into the convolutions before them.

    Outputs, hidden states and probe points are those of the network in evaluation mode, up to float32 rounding; between
    a convolution and its batch norm there is nothing left to see. A batch norm that follows no convolution stays. The
    copy is in evaluation mode and cannot be trained: its parameters take no gradient. Save the original, since a
    checkpoint of the copy does not fit its description.

    Args:
        model: A network of this library; it is left as it is.

    Returns:
        The copy, on the same device.

    Raises:
        ModelInputError: If the network is none of this library: in others it is not known what follows what.
    """
    if not isinstance(model, Network):
        raise ModelInputError("model", f"{type(model).__name__} given; accepted: what create_model or load gives")
    fused = copy.deepcopy(model).eval()
    for parent in list(fused.modules()):
        for conv, norm in _pairs(parent):
            _fuse(parent, conv, norm)
    return fused.eval().requires_grad_(False)


def _fuse(parent: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
    if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
        parent.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        parent.set_submodule(norm_name, nn.Identity())


def _pairs(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """The names of neighbors in a sequence, and of `conv1` and `bn1`, as torchvision's blocks call such."""
    names = [name for name, _ in parent.named_children()]
    if isinstance(parent, nn.Sequential):
        yield from pairwise(names)
    yield from ((name, norm) for name in names if (norm := name.replace("conv", "bn")) in names and norm != name)
