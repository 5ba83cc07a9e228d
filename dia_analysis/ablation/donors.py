"""The maps of other images, for resampling."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from dia_analysis.ablation.replacements import DRAWS, derangement
from dia_analysis.ablation.running import Maps

LARGEST = 2**30  # bytes of maps that are held


class Donors:
    """Maps of other images, one donor for all layers of an image, in several draws.

    Donors come from all the images, whose maps are held; where these would be more than `largest` bytes, from the
    image's own batch.
    """

    def __init__(self, seed: int, largest: int = LARGEST):
        self.generator = torch.Generator().manual_seed(seed)
        self.largest = largest
        self.held: list[Maps] | None = [] if largest else None
        self.bytes = 0
        self.images = 0
        self.orders: list[Int64[Tensor, image]] = []

    @property
    def within_batches(self) -> bool:
        """Whether donors come from the image's own batch."""
        return self.held is None

    def add(self, maps: Maps) -> None:
        """Hold the maps of a batch."""
        self.images += len(maps[0])
        self.bytes += sum(part.nbytes for part in maps)
        if self.bytes > self.largest:
            self.held = None
        if self.held is not None:
            self.held.append(maps)

    def draw(self) -> None:
        """Draw the donors of all images, when all are there."""
        if self.held is None:
            return
        self.orders = [derangement(self.images, self.generator) for _ in range(DRAWS)]
        self.whole = [torch.cat(parts) for parts in zip(*self.held, strict=True)]
        self.held = []

    def of(self, first: int, own: Maps) -> list[Maps]:
        """By draw, the donors' maps for a batch that starts with image `first` and has these maps of its own."""
        count = len(own[0])
        if self.held is None:
            orders: Sequence[Tensor] = [derangement(count, self.generator) for _ in range(DRAWS)]
            return [[maps[order] for maps in own] for order in orders]
        return [[maps[order[first : first + count]] for maps in self.whole] for order in self.orders]
