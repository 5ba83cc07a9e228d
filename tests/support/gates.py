"""A network whose attention maps are its input, so that a test can plant them."""

from math import inf

import torch
from torch import nn
from torch.nn import functional as F

from dia_analysis import measure_correlation


class Gates(nn.Module):
    """A network whose attention maps are slices of its input: (image, layer, channel). They multiply features."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"gate": nn.Identity()}) for _ in range(layers))

    def forward(self, x):
        features = F.conv1d(x.mT, torch.eye(x.shape[2], dtype=x.dtype)[..., None], padding=1)
        gates = [layer["gate"](x[:, i].clamp(-inf, inf)) for i, layer in enumerate(self.layers)]
        return sum((features * gate[..., None]).sum() for gate in gates)


def of_maps(maps, batch_size=3):
    return measure_correlation(Gates(maps.shape[1]), maps.split(batch_size))
