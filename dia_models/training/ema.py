"""An exponential moving average of a network's weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """An average of `model` (its `module`) that `update_parameters(model)` moves by 1 - decay, and no gradient reaches.

    After n updates the decay is at most (1 + n) / (10 + n), so that the random first weights are soon forgotten. Batch
    norms' running statistics are averaged like the weights that they belong to.
    """

    def move(averages: Tensors, current: Tensors, updates: Tensor | int) -> None:
        kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - kept)
        else:  # how many batches a batch norm has seen
            torch._foreach_copy_(averages, current)

    return AveragedModel(model, multi_avg_fn=move, use_buffers=True).requires_grad_(False)
