"""Fill in removed pixels from what is left: noisy linear imputation (Rong et al. 2022)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Images = Float[Tensor, "image channel height width"]
Mask = Float[Tensor, "image 1 height width"]
Level = tuple[Float[Tensor, "_ 1 _ _"], Float[Tensor, "_ 1 _ _"]]  # the mask and the weight of all neighbors

NOISE = 0.01  # the standard deviation of the noise, in the units of the network's input
TOLERANCE = 1e-3  # of a pixel: a tenth of the noise
CYCLES = 50
CACHED = 2**18  # values that CPUs keep near while they are worked on


def impute(
    images: Images, removed: Bool[Tensor, "image 1 height width"], noise: float, generator: torch.Generator
) -> Images:
    """The images with each removed pixel as the weighted mean of its neighbors, plus Gaussian noise.

    Direct neighbors weigh 1/6 and diagonal ones 1/12, renormalized at the image's edge. Where nothing is left of an
    image, only the noise is.
    """
    on_cpu = images.device.type == "cpu"
    parts = max(1, CACHED // images[0].numel()) if on_cpu else len(images)
    filled = [solve(*part) for part in zip(torch.split(images, parts), torch.split(removed, parts), strict=True)]
    drawn = torch.randn(images.shape, generator=generator, dtype=images.dtype).to(images.device)
    return torch.cat(filled) + removed * noise * drawn


def solve(images: Images, removed: Bool[Tensor, "image 1 height width"]) -> Images:
    """The imputation without noise, for all images at once.

    By conjugate gradients, whose preconditioner is a multigrid cycle, until the estimated error is below 0.001.
    """
    levels = list(_levels(removed.to(images.dtype)))
    mask, degree = levels[0]
    filled = torch.where(removed, 0, images)
    residual = mask * _neighbors(filled)
    change = direction = torch.zeros_like(images)
    last = torch.ones_like(images[..., :1, :1])
    for _ in range(CYCLES):
        error = _cycle(residual, levels)
        if error.abs().max() < TOLERANCE:
            break
        size = _dot(residual, error)
        direction = error + size / last * direction
        slope = mask * (degree * direction - _neighbors(direction))
        step = size / _dot(direction, slope).clamp_min(1e-30)
        change, residual, last = change + step * direction, residual - step * slope, size.clamp_min(1e-30)
    return filled + change


def _levels(mask: Mask) -> Iterator[Level]:
    """The mask and the weight of all neighbors, and the same at half, a quarter, ... the size.

    A coarse pixel is removed where all of its pixels are.
    """
    while True:
        yield mask, _neighbors(torch.ones_like(mask))
        if min(mask.shape[2:]) < 4 or not mask.any():
            return
        mask = 1 - F.max_pool2d(1 - mask, 2, ceil_mode=True)


def _cycle(residual: Images, levels: list[Level]) -> Images:
    """About the change that removes the residual: means of neighbors, and for what is smooth the coarser levels."""
    mask, degree = levels[0]
    change = residual / degree
    if len(levels) == 1:
        return change
    left = mask * _neighbors(change)
    coarse = _cycle(levels[1][0] * F.avg_pool2d(left, 2, ceil_mode=True, divisor_override=1), levels[1:])
    change = change + mask * F.interpolate(coarse, scale_factor=2.0)[..., : mask.shape[2], : mask.shape[3]]
    return (residual + mask * _neighbors(change)) / degree


def _neighbors(images: Images) -> Images:
    """The weighted sum of each pixel's neighbors; none beyond the edge."""
    wide = F.pad(images, (1, 1, 1, 1))
    rows = wide[..., :-2, :] + 2 * wide[..., 1:-1, :] + wide[..., 2:, :]
    around = rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]  # the pixel itself is in it four times
    return (around - 4 * images) / 12


def _dot(a: Images, b: Images) -> Float[Tensor, "image channel 1 1"]:
    return (a * b).sum((2, 3), keepdim=True)
