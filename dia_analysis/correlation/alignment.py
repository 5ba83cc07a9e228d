"""CKA between all layers of a network, whose widths may differ: over all images, or in batches where they are many."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dia_analysis.correlation.groups import GROUPS
from dia_analysis.correlation.held import Block
from dia_analysis.correlation.likeness import over_heads
from dia_analysis.distributed import all_gather
from dia_analysis.probes.stages import StageMaps
from dia_analysis.statistics.cka import alignment, kernel_sums

BATCH = 500  # images of a batch, where the maps of all do not fit into memory

Hsic = Float[np.ndarray, "some layer layer"]


@dataclass(frozen=True)
class Alignment:
    """CKA of every two layers of all stages, in forward order, on all images and, if known, without each group.

    `batches` is in how many batches of 500 images it was taken, None for all at once; `images` are those on which all
    maps are finite.
    """

    matrices: Hsic
    without_gain: Hsic
    images: int
    batches: int | None = None

    def of_stage(self, first: int, layers: int) -> dict[str, Hsic]:
        """The part of some layers that follow each other."""
        some = slice(first, first + layers)
        return {"cka": self.matrices[:, some, some], "cka_without_gain": self.without_gain[:, some, some]}


def align(block: Block, stages: Sequence[StageMaps]) -> Alignment:
    """CKA over the images of a block, all at once."""
    layers, groups = layer_vectors(block, stages)
    sizes = torch.bincount(groups, minlength=GROUPS).tolist()
    whole, without = (alignment(kernel_sums(each, sizes).hsic()) for each in (layers, _without_gain(layers)))
    return Alignment(whole, without, len(groups))


class BatchedAlignment:
    """CKA from the mean HSIC of batches of 500 images in random order (Nguyen et al. 2021), block by block."""

    def __init__(self, stages: Sequence[StageMaps], seed: int):
        self.stages = stages
        self.random = torch.Generator().manual_seed(seed)
        self.sums: list[np.ndarray] = []
        self.batches = self.images = 0

    def add(self, block: Block) -> None:
        """Add some images."""
        layers, _ = layer_vectors(block, self.stages)
        order = torch.randperm(len(layers[0]), generator=self.random)
        for chosen in torch.split(order, BATCH):
            if len(chosen) < BATCH and self.batches:
                continue  # a small rest would count as much as a whole batch
            some = [layer[chosen] for layer in layers]
            self.sums.append(np.stack([kernel_sums(each).hsic()[0] for each in (some, _without_gain(some))]))
            self.batches += 1
            self.images += len(chosen)
            self.sums = [np.sum(self.sums, axis=0)]

    def result(self) -> Alignment:
        """Of all processes together."""
        batches = sum(all_gather(self.batches))
        sums = [part for parts in all_gather(self.sums) for part in parts]
        mean = np.sum(sums, axis=0) / batches
        return Alignment(alignment(mean[:1]), alignment(mean[1:]), sum(all_gather(self.images)), batches)


def layer_vectors(block: Block, stages: Sequence[StageMaps]) -> tuple[list[Float[Tensor, "image _"]], Tensor]:
    """The maps of each layer, one after the other, on the images where all are finite, and the images' groups.

    Of self-attention the mean over heads, whose order has no meaning. Layers that are never finite are zeros.
    """
    layers = [
        maps
        for stage, all_maps in zip(stages, block.stages, strict=True)
        for maps in over_heads(replace(stage, maps=all_maps)).maps.unbind(1)
    ]
    finite = torch.stack([layer.isfinite().all(1) for layer in layers], 1)
    sometimes = finite.any(0)
    used = finite[:, sometimes].all(1)
    some = [
        layer[used] if is_used else layer[used].new_zeros(()) for layer, is_used in zip(layers, sometimes, strict=True)
    ]
    count = int(used.sum())
    return [layer if layer.ndim else layer.expand(count, 1) for layer in some], block.groups[used]


def _without_gain(layers: Sequence[Tensor]) -> list[Tensor]:
    """Less each image's mean over elements."""
    return [values - values.mean(1, keepdim=True) for values in map(Tensor.double, layers)]
