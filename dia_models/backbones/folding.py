"""Faster evaluation on CPUs: batch norms computed as part of the convolutions before them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Features = Float[Tensor, "batch channel height width"]


@dataclass(frozen=True)
class Output:
    """What a `FoldingSequential` gives. `means` (batch, channel) are the features' means over positions, if they
    came at no cost; `fresh` says that nobody else holds the features, so that their memory may be written to.
    """

    features: Features
    means: Float[Tensor, "batch channel"] | None = None
    fresh: bool = False


class FoldingSequential(nn.Sequential):
    """Convolutions, batch norms and others in sequence.

    In evaluation without gradients on a CPU, a batch norm that follows a convolution is folded into its weights: equal
    to 1e-5, and one pass over the features less. Otherwise, and if a hook wants to see what happens between the
    two, it is the plain sequence. The parameters and their names are those of an `nn.Sequential`.
    """

    def forward(self, x: Features) -> Float[Tensor, "batch out h w"]:
        """Run the sequence."""
        if self._may_fold(x):
            return self._folded(x).features
        for module in self:
            x = module(x)
        return x

    def run(self, x: Features) -> Output:
        """Run the sequence, and give the features' means where they can be had from the last convolution's input."""
        if hooked(self) or not self._may_fold(x):
            return Output(self(x))
        return self._folded(x)

    def _may_fold(self, x: Features) -> bool:
        on_cpu = x.device.type == "cpu" and x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
        return on_cpu and not torch.is_grad_enabled() and not any(m.training or hooked(m) for m in self)

    def _folded(self, x: Features) -> Output:
        means, fresh = None, False
        for conv, norm in self._pairs():
            if isinstance(conv, nn.Conv2d):
                weight, bias = folded(conv, norm)
                means = _pointwise_means(conv, weight, bias, x)
                x, fresh = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups), True
            else:
                x, means, fresh = conv(x), None, False
        return Output(x, means, fresh)

    def _pairs(self) -> Iterator[tuple[nn.Module, nn.BatchNorm2d | None]]:
        """The members, each convolution with the batch norm that follows it."""
        members = list(self)
        while members:
            first = members.pop(0)
            norm = members[0] if members and isinstance(first, nn.Conv2d) else None
            if isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None:
                members.pop(0)
                yield first, norm
            else:
                yield first, None


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the one convolution that does what `conv`, then `norm` in evaluation do."""
    if norm is None:
        return conv.weight, conv.bias
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    bias = -mean * scale if norm.bias is None else torch.addcmul(norm.bias, mean, scale, value=-1)
    return conv.weight * scale[:, None, None, None], bias


def _pointwise_means(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, x: Features
) -> Float[Tensor, "batch out"] | None:
    """The means of a 1x1 convolution's output: the convolution of the means of its input, which has fewer channels."""
    narrower = conv.in_channels < conv.out_channels
    if conv.kernel_size != (1, 1) or conv.stride != (1, 1) or conv.groups != 1 or not narrower:
        return None
    return F.linear(x.sum((2, 3)) / x[0, 0].numel(), weight.flatten(1), bias)


def hooked(module: nn.Module) -> bool:
    """Whether somebody sees what the module is given or gives, and may keep it.

    A hook that has an attribute `keeps_nothing` which is true does not count.
    """
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(not getattr(hook, "keeps_nothing", False) for hook in hooks)
