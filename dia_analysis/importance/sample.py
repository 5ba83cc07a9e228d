"""Keep the attention maps of some images out of any number, drawn at random, in bounded memory."""

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class ImageSample(Metric):
    """Draws at most `images` images of a stream, each with equal chance, and at most `elements` of their elements.

    Every image gets a random key, from `seed`, and those with the lowest keys stay: so what stays depends neither on
    the batch size nor on the order in which several processes' samples are merged. The elements are the same for all
    images. An image with a value that is not finite is left out and counted.
    """

    full_state_update = False
    keys: list[Float64[Tensor, "image"]]
    maps: list[Float32[Tensor, "image layer element"]]
    seen: Int64[Tensor, ""]
    left_out: Int64[Tensor, ""]

    def __init__(self, images: int, elements: int, seed: int):
        super().__init__()
        self.most, self.elements, self.seed = images, elements, seed
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        self.random = np.random.default_rng([seed, rank])
        self.add_state("keys", [], "cat")
        self.add_state("maps", [], "cat")
        self.add_state("seen", torch.tensor(0), "sum")
        self.add_state("left_out", torch.tensor(0), "sum")

    def update(self, maps: Float[Tensor, "image layer element"]) -> None:
        """Offer some images."""
        values = maps[:, :, self._chosen(maps.shape[2])].to("cpu", torch.float32)
        finite = values.isfinite().all(2).all(1)
        keys = torch.from_numpy(self.random.random(len(maps)))
        self.seen += len(maps)
        self.left_out += len(maps) - finite.sum().cpu()
        keys, values = self._lowest([*self.keys, keys[finite]], [*self.maps, values[finite]])
        self.keys, self.maps = [keys], [values]

    def compute(self) -> Float32[np.ndarray, "image layer element"]:
        """The images drawn, in random order."""
        return self._lowest(self.keys, self.maps)[1].numpy()

    def _chosen(self, elements: int) -> Int64[np.ndarray, "element"]:
        if elements <= self.elements:
            return np.arange(elements)
        return np.sort(np.random.default_rng(self.seed).choice(elements, self.elements, replace=False))

    def _lowest(self, keys: list[Tensor], maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        all_keys = dim_zero_cat(keys)
        lowest = all_keys.argsort()[: self.most]
        return all_keys[lowest], dim_zero_cat(maps)[lowest]
