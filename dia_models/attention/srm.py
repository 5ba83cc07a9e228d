"""Style-based recalibration, SRM (Lee et al. 2019)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.attention.base import ChannelAttention, Features, precise
from dia_models.attention.registry import About, register


@register("srm", About("σ(BN(a ⊗ mean + b ⊗ std))", "4N", "Lee et al. 2019", kept="batch norm"))
class StyleRecalibration(ChannelAttention):
    """gate = sigmoid(BN(a · mean + b · std)), channel by channel; a = b = 0 at first. 4N parameters.

    A shared module shares a and b; each layer keeps a batch norm of its own, unless `share_bn` (Fig. 15).
    """

    smallest_side = 2
    compares_positions = True

    def __init__(self, channels: int, *, share_bn: bool = False):
        super().__init__()
        self.share_bn = share_bn
        self.weights = nn.Parameter(torch.zeros(channels, 2))
        self.norms = nn.ModuleList([nn.BatchNorm1d(channels)])

    def serve(self, layers: int) -> None:
        """One batch norm per layer."""
        if not self.share_bn:
            channels = len(self.weights)
            self.norms.extend(nn.BatchNorm1d(channels) for _ in range(layers - 1))

    def without_weight_decay(self) -> list[nn.Parameter]:
        """The style weights, as published."""
        return [self.weights]

    def extract(self, branch: Features) -> Float[Tensor, "batch channel 2"]:
        """Mean and standard deviation of each channel; the variance is the unbiased one, plus 1e-5."""
        variance, mean = torch.var_mean(precise(branch), (2, 3))
        return torch.stack([mean, (variance + 1e-5).sqrt()], dim=2)

    def process(
        self, extracted: Float[Tensor, "batch channel 2"], state: int | None
    ) -> tuple[Float[Tensor, "batch channel"], int]:
        """Weigh the styles; the state counts the layers."""
        layer = state or 0
        norm = self.norms[0 if self.share_bn else layer]
        return norm((extracted * self.weights).sum(2)).sigmoid(), layer + 1
