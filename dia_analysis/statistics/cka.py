"""Centered kernel alignment (CKA) with the unbiased HSIC: how alike are two layers' vectors over images?

Linear kernels (Kornblith et al. 2019), HSIC without bias (Song et al. 2012, equation 5), as Nguyen et al. 2021 use it.
Blind to rotations of either layer's elements, whose numbers may differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

LEAST_IMAGES = 4
AT_ONCE = 2**24  # elements of the parts of all layers' kernels
WIDEST = 2**12  # elements of all layers together, up to which their covariance is held
EXACT = 2**30  # multiplications up to which kernels are in float64; in float32 they differ by less than 1e-6

Layers = Sequence[Float[Tensor, "image _"]]


@dataclass(frozen=True)
class KernelSums:
    """Of every two layers' kernels, diagonals set to 0, over `images`: the sum of their products (`products`), the
    sum of each (`total`), and the products of their sums over rows (`rows`).

    The first axis is over all images and, where groups were given, over all but each group.
    """

    images: Int64[np.ndarray, "some"]
    products: Float[np.ndarray, "some layer layer"]
    total: Float[np.ndarray, "some layer"]
    rows: Float[np.ndarray, "some layer layer"]

    def hsic(self) -> Float[np.ndarray, "some layer layer"]:
        """The unbiased HSIC of every two layers; NaN for fewer than four images."""
        n = np.where(self.images < LEAST_IMAGES, np.nan, self.images)[:, None, None]
        totals = self.total[:, :, None] * self.total[:, None, :]
        whole = self.products + totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * self.rows
        found: np.ndarray = whole / (n * (n - 3))
        return found


def cka(layers: Layers) -> Float[np.ndarray, "layer layer"]:
    """Debiased linear CKA of every two layers over all images; NaN where a layer's own term is not above 0."""
    found: np.ndarray = alignment(kernel_sums(layers).hsic())[0]
    return found


def alignment(hsic: Float[np.ndarray, "some layer layer"]) -> Float[np.ndarray, "some layer layer"]:
    """CKA from the HSIC of every two layers; NaN where a layer's own is not above 0."""
    own = np.diagonal(hsic, axis1=1, axis2=2)
    scale = np.sqrt(np.where(own > 0, own, np.nan))
    found: np.ndarray = hsic / (scale[:, :, None] * scale[:, None, :])
    return found


def permuted_std(images: int) -> float:
    """The standard deviation of the CKA of two layers, one's images permuted at random: sqrt(2 / (n (n - 3))).

    Exact whatever the maps, over all permutations, whose mean is 0: U-centered kernels have rows that add up to 0.
    """
    return float(np.sqrt(2 / (images * (images - 3)))) if images >= LEAST_IMAGES else np.nan


def kernel_sums(layers: Layers, sizes: Sequence[int] = ()) -> KernelSums:
    """The sums over all images and, given the `sizes` of groups of images that follow each other, without each."""
    vectors = [_scaled(layer) for layer in layers]
    images, width = len(vectors[0]), sum(layer.shape[1] for layer in vectors)
    if width <= min(images, WIDEST):
        products = _products_by_elements(vectors, _bounds(sizes))
    else:
        products = _products_by_images(vectors, _bounds(sizes))
    total, rows = _row_sums(vectors, _bounds(sizes))
    left = np.array([images, *(images - size for size in sizes)])
    return KernelSums(left, products, total, rows)


def _products_by_elements(vectors: list[Tensor], parts: list[tuple[int, int]]) -> np.ndarray:
    """The sums of products from the layers' covariances, as tr(KL) = |X'Y|²: quicker than kernels of many images."""
    every, widths = torch.cat(vectors, 1), [layer.shape[1] for layer in vectors]
    own = torch.stack([layer.square().sum(1) for layer in vectors], 1)  # the kernels' diagonals
    whole, diagonal = _covariances(every, widths), own.T @ own
    found = [_squares(whole, widths) - diagonal]
    for start, stop in parts:
        within, its_own = _covariances(every[start:stop], widths), own[start:stop]
        left = [total - part for total, part in zip(whole, within, strict=True)]
        found.append(_squares(left, widths) - (diagonal - its_own.T @ its_own))
    return torch.stack(found).numpy()


def _covariances(every: Float[Tensor, "image all"], widths: Sequence[int]) -> list[Float[Tensor, "_ _"]]:
    """Each layer's with itself and all later ones."""
    return [every[:, first:last].T @ every[:, first:] for first, last in _bounds(widths)]


def _squares(covariances: list[Float[Tensor, "_ _"]], widths: Sequence[int]) -> Float[Tensor, "layer layer"]:
    """The squares of every two layers' covariances, added up."""
    found = torch.zeros(len(widths), len(widths), dtype=torch.float64)
    for layer, covariance in enumerate(covariances):
        each = torch.split(covariance.square().sum(0), list(widths[layer:]))
        found[layer, layer:] = torch.stack([part.sum() for part in each])
    return found.triu(1).T + found


def _products_by_images(vectors: list[Tensor], parts: list[tuple[int, int]]) -> np.ndarray:
    """The sums of products from the kernels themselves: quicker for few images of many elements."""
    images = len(vectors[0])
    if images**2 * sum(layer.shape[1] for layer in vectors) > EXACT:
        vectors = [layer.float() for layer in vectors]
    near = [_products(vectors, start, stop) for start, stop in parts or [(0, images)]]
    whole, within = (torch.stack(each).numpy() for each in zip(*near, strict=True))
    every = whole.sum(0, keepdims=True)
    return np.concatenate([every, every - 2 * whole + within]) if parts else every


def _scaled(layer: Float[Tensor, "image _"]) -> Float[Tensor, "image _"]:
    """Less its mean over images, with a mean square of 1: HSIC is blind to the first, CKA to both."""
    values = layer.double()
    values = values - values.mean(0)
    size = values.square().mean().sqrt()
    return values / size if size > 0 else values


def _bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    ends: list[int] = np.cumsum(sizes, dtype=int).tolist()
    return list(zip([0, *ends], ends, strict=False))


def _products(vectors: list[Tensor], start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Products of every two layers' kernels over the rows of some images: with all images, and with these alone."""
    layers, images = len(vectors), len(vectors[0])
    whole, within = (torch.zeros(layers, layers, dtype=torch.float64) for _ in range(2))
    step = max(1, AT_ONCE // (layers * images))
    for first in range(start, stop, step):
        last = min(first + step, stop)
        kernels = torch.stack([layer[first:last] @ layer.T for layer in vectors])
        kernels[:, torch.arange(last - first), torch.arange(first, last)] = 0
        near = kernels[:, :, start:stop].flatten(1)
        whole += (kernels.flatten(1) @ kernels.flatten(1).T).double()
        within += (near @ near.T).double()
    return whole, within


def _row_sums(vectors: list[Tensor], parts: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The sums of all kernels, and the products of their sums over rows; over all images, and without each part."""
    sums = torch.stack([_sums_over(layer.double(), parts) for layer in vectors])  # (layer, all or without, image)
    by_choice = sums.permute(1, 0, 2)
    return by_choice.sum(2).numpy(), (by_choice @ by_choice.mT).numpy()


def _sums_over(layer: Float[Tensor, "image element"], parts: list[tuple[int, int]]) -> Float[Tensor, "some image"]:
    """Each image's row of the kernel added up, its own entry left out; images of a part have none without it."""
    own = layer.square().sum(1)
    whole = layer @ layer.sum(0) - own
    if not parts:
        return whole[None]
    group_sums = torch.stack([layer[start:stop].sum(0) for start, stop in parts])
    near = group_sums @ layer.T
    for row, (start, stop) in zip(near, parts, strict=True):
        row[start:stop] -= own[start:stop]
    left = whole - near
    for row, (start, stop) in zip(left, parts, strict=True):
        row[start:stop] = 0
    return torch.cat([whole[None], left])
