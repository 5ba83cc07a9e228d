"""Remove or restore the most relevant part of images, step by step, and see what becomes of the score."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

Images = Float[Tensor, "image channel height width"]
Maps = Float[np.ndarray, "image height width"]
Scores = Callable[[Images], Float[np.ndarray, "image"]]


def blurred(images: Images) -> Images:
    """The images without their details: a Gaussian blur whose width is an eighth of the shorter side."""
    shorter = min(images.shape[2:])
    result: Tensor = gaussian_blur(images, [2 * (shorter // 2) - 1] * 2, [shorter / 8] * 2)
    return result


def ranks(maps: Maps, random: np.random.Generator) -> Float[np.ndarray, "image height width"]:
    """Each position's place in the order of falling relevance, from 0 to below 1; equal ones in random order."""
    flat = maps.reshape(len(maps), -1)
    order = np.lexsort((random.random(flat.shape), -flat), axis=1)
    places = np.empty(flat.shape)
    np.put_along_axis(places, order, np.arange(flat.shape[1]) / flat.shape[1], axis=1)
    return places.reshape(maps.shape)


def curves(
    score: Scores, images: Images, maps: Maps, steps: int, random: np.random.Generator
) -> Float[np.ndarray, "2 image step"]:
    """The scores while the most relevant 0/steps, 1/steps, ... of an image are blurred (deletion), and while they are
    brought back into a blurred image (insertion; Petsiuk et al. 2018)."""
    places = torch.from_numpy(ranks(maps, random)).to(images.device)[:, None]
    blank = blurred(images)
    found = np.empty((2, len(images), steps + 1))
    for step in range(steps + 1):
        relevant = places < step / steps
        found[0, :, step] = score(torch.where(relevant, blank, images))
        found[1, :, step] = score(torch.where(relevant, images, blank))
    return found


def area(curve: Float[np.ndarray, "*shape step"]) -> np.ndarray:
    """The area under each curve, over fractions 0 to 1: the mean score along the way."""
    result: np.ndarray = (curve[..., 1:] + curve[..., :-1]).mean(-1) / 2
    return result
