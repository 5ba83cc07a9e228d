"""How alike are layers by chance? Channels in another order, and another image's map for the second layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

DRAWS, IMAGE_DRAWS = 1000, 39
LARGEST = 2**13  # layers times elements, above which channels are not permuted: a matrix of that size squared

Units = Float[Tensor, "image layer element"]


@contextmanager
def _autocast_off() -> Iterator[None]:
    """Products are in the precision of what is multiplied, whatever autocast the caller is in."""
    with torch.autocast("cpu", enabled=False):
        yield


@dataclass(frozen=True)
class Chance:
    """What a number is by chance: mean, standard deviation, and the middle 95 % of `draws` draws.

    Without `draws`, mean and standard deviation are those over all orders, and the range holds at least 95 %.
    """

    mean: float
    std: float
    low: float
    high: float
    draws: int | None

    @classmethod
    def of(cls, draws: Float[np.ndarray, "draw"]) -> "Chance":
        """Of draws at random."""
        low, high = np.quantile(draws, [0.025, 0.975])
        return cls(float(draws.mean()), float(draws.std()), float(low), float(high), len(draws))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"mean": self.mean, "std": self.std, "interval": [self.low, self.high], "draws": self.draws}


@_autocast_off()
def permuted_channels(units: Units, seed: int, draws: int = DRAWS) -> Float[np.ndarray, "draw pair"]:
    """The mean r over images of every two layers, where each layer's elements have another order.

    The order is drawn once for a layer in each draw, the same for all images. Pairs are in the order of `triu_indices`.

    Args:
        units: Maps less their mean over elements, of length 1; zeros where r is not defined.
    """
    _, layers, elements = units.shape
    random = torch.Generator().manual_seed(seed)
    orders = torch.rand(draws, layers, elements, generator=random).argsort(2)
    defined = _defined(units)
    counts = (defined.T @ defined).clamp(min=1)
    found = []
    for layer in range(layers - 1):
        others = units[:, layer + 1 :].flatten(1)
        products = (units[:, layer].T @ others).view(elements, layers - layer - 1, elements)
        for other in range(layer + 1, layers):
            chosen = products[orders[:, layer], other - layer - 1, orders[:, other]]
            found.append(chosen.sum(1) / counts[layer, other])
    return torch.stack(found, 1).double().numpy()


@_autocast_off()
def permuted_images(
    units: Units, over_images: Float[Tensor, "element layer image"], seed: int, draws: int = IMAGE_DRAWS
) -> dict[str, Float[np.ndarray, "draw"]]:
    """Means over pairs of the image-dependent readings, where each layer's images have another order.

    Args:
        units: Deviations from the mean map, centered over elements, of length 1; zeros where not defined.
        over_images: Deviations of each element, of length 1 over the images; zeros where not defined.
        seed: Of the orders.
        draws: How many.
    """
    images, layers, elements = units.shape
    rows, columns = np.triu_indices(layers, 1)
    random = torch.Generator().manual_seed(seed)
    rows_of_maps, varying = units.permute(1, 0, 2).flatten(0, 1), over_images.abs().sum(2) > 0
    both = (varying[:, rows] & varying[:, columns]).sum(0).clamp(min=1)
    defined, starts = _defined(units).T.flatten(), torch.arange(layers)[:, None] * images
    found: dict[str, list[float]] = {"mean_r_image": [], "mean_r_channel": [], "mean_abs_r_channel": []}
    for _ in range(draws):
        orders = torch.stack([torch.randperm(images, generator=random) for _ in range(layers)])
        places = (orders + starts).flatten()
        moved = rows_of_maps.index_select(0, places).view(layers, -1)
        there = defined.index_select(0, places).view(layers, -1)
        r_image = (moved @ moved.T) / (there @ there.T).clamp(min=1)
        found["mean_r_image"].append(float(r_image[rows, columns].mean()))
        shuffled = over_images.gather(2, orders.expand(elements, -1, -1))
        r = (shuffled @ shuffled.mT)[:, rows, columns]
        found["mean_r_channel"].append(float((r.sum(0) / both).mean()))
        found["mean_abs_r_channel"].append(float((r.abs().sum(0) / both).mean()))
    return {name: np.array(values) for name, values in found.items()}


def _defined(units: Units) -> Float[Tensor, "image layer"]:
    """1 for each map that has a direction, else 0."""
    return (units != 0).any(2).to(units.dtype)
