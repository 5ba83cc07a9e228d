"""Networks whose heatmaps are known, and maps that are planted."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Tiny(nn.Module):
    """Two features, x and -x; their means; classes weigh them (2, 3), (1, -1) or as given."""

    def __init__(self, weights=((2.0, 3.0), (1.0, -1.0))):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, len(weights), bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor(weights))

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


SQUARE = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])


def spread(model):
    """Batch norms as after a few batches, so that an untrained network's features do not vanish."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.constant_(module.running_var, 0.3)


def state(model):
    return {
        "modes": [m.training for m in model.modules()],
        "grads": [p.grad for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "weights": [hash(t.numpy().tobytes()) for t in model.state_dict().values()],
        "rng": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "grad mode": torch.is_grad_enabled(),
    }


def maps(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


class Finder(nn.Module):
    """Class 1 is a bright patch, in any place: trained weights by construction, the rest of the features is noise."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 5, padding=2, bias=False)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)
        with torch.no_grad():
            self.conv.weight[0] = 1 / 25
            self.second.weight[0] = 0
            self.second.weight[0, 0, 1, 1] = 1
            self.second.bias[0] = -0.4
            self.head.weight.zero_()
            self.head.weight[1, 0], self.head.bias[1] = 1000, -6

    def forward(self, x):
        return self.head(self.second(self.conv(x).relu()).relu().mean((2, 3)))


def patches(images=6, size=20):
    """Dark noise with one bright 5x5 patch in each; and where it is."""
    pictures = 0.1 * torch.rand(images, 1, size, size)
    where = np.zeros((images, size, size), dtype=np.float32)
    for i, (y, x) in enumerate(np.random.default_rng(0).integers(0, size - 5, (images, 2))):
        pictures[i, :, y : y + 5, x : x + 5] = 1
        where[i, y : y + 5, x : x + 5] = 1
    return pictures, where


def edges(_, images, __):
    """A map of the input's edges, which does not look at the network."""
    across, down = (F.conv2d(images, k, padding=1).abs() for k in (SOBEL, SOBEL.mT))
    return (across + down)[:, 0].numpy()


SOBEL = torch.tensor([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]])


def take_maps(result, layer_maps, name):
    return replace(result, layer_maps=layer_maps.astype(np.float32), name=name)
