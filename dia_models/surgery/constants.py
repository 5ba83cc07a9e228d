"""What takes the place of a module whose gate is a constant that no layer beside it could take up."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Scale(nn.Module):
    """Gives its input times a constant, `scale` of shape (1, ...), in place of a module that scaled it."""

    scale: Tensor

    def __init__(self, scale: Tensor):
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, features: Tensor) -> Tensor:
        """Scale the features."""
        return features * self.scale


class Gate(nn.Module):
    """Gives a constant, `gate` of shape (1, ...), for every image, in place of a module that made the gate."""

    gate: Tensor

    def __init__(self, gate: Tensor):
        super().__init__()
        self.register_buffer("gate", gate)

    def forward(self, features: Tensor) -> Tensor:
        """The gate of each image."""
        return self.gate.expand(len(features), *self.gate.shape[1:])


def scale_shape(dimension: int, dimensions: int, channels: int) -> tuple[int, ...]:
    """That of one factor for each channel of features of so many dimensions."""
    return tuple(channels if place == dimension else 1 for place in range(dimensions))


def scale_layer(module: Any, factor: Tensor, side: str) -> None:
    """Multiply a layer's outputs (it comes `before` the factor) or its inputs (`after` it) by a factor a channel.

    Computed in at least float32: W' = gW, b' = gb; norms gamma' = g gamma, beta' = g beta, and after the factor
    beta' = beta + gamma mu (g - 1) / sigma; of a convolution or linear layer after it, the columns times g, by group.
    A norm without weights gains them.
    """
    exact = factor.double()
    with torch.no_grad():
        if isinstance(module, _BatchNorm | nn.LayerNorm):
            _scale_norm(module, exact, side)
        elif side == "before":
            _multiply(module, exact)
        else:
            _multiply_columns(module, exact)


def _scale_norm(norm: Any, factor: Tensor, side: str) -> None:
    _give_weights(norm, factor)
    weight, bias = norm.weight, norm.bias
    if side == "before":
        _multiply(norm, factor)
        return
    shift = weight.double() * norm.running_mean.double() * (factor - 1)
    shift = shift / (norm.running_var.double() + norm.eps).sqrt()
    bias.copy_(bias.double() + shift)
    weight.copy_(weight.double() * factor)


def _give_weights(norm: Any, factor: Tensor) -> None:
    """A norm without weights gains those that change nothing, in the type that it computes in."""
    if norm.weight is None:
        norm.affine = norm.elementwise_affine = True
        some = getattr(norm, "running_mean", None)
        like = factor.float() if some is None else some
        norm.weight = nn.Parameter(torch.ones_like(like, memory_format=torch.contiguous_format))
    if norm.bias is None:
        norm.bias = nn.Parameter(torch.zeros_like(norm.weight))


def _multiply(module: Any, factor: Tensor) -> None:
    """The rows of the weight, and the bias, times the factor."""
    rows = factor.reshape(-1, *[1] * (module.weight.ndim - 1))
    module.weight.copy_(module.weight.double() * rows)
    if module.bias is not None:
        module.bias.copy_(module.bias.double() * factor)


def _multiply_columns(module: Any, factor: Tensor) -> None:
    """The columns of the weight times the factor; each group of a convolution's outputs sees its part of the inputs."""
    weight = module.weight
    groups = getattr(module, "groups", 1)
    parts = factor.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
    scaled = weight.double().reshape(groups, -1, *weight.shape[1:]) * parts
    weight.copy_(scaled.reshape(weight.shape))
