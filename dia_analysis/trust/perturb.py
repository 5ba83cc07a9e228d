"""Remove the most or least relevant part of images, step by step, and see what becomes of the score."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dia_analysis.trust.impute import NOISE, impute

Images = Float[Tensor, "image channel height width"]
Maps = Float[np.ndarray, "image height width"]
Scores = Callable[[Images], Float[np.ndarray, "image"]]


def ranks(maps: Maps, random: np.random.Generator) -> Float[np.ndarray, "image height width"]:
    """Each position's place in the order of falling relevance, from 0 to below 1; equal ones in random order."""
    flat = maps.reshape(len(maps), -1)
    order = np.lexsort((random.random(flat.shape), -flat), axis=1)
    places = np.empty(flat.shape)
    np.put_along_axis(places, order, np.arange(flat.shape[1]) / flat.shape[1], axis=1)
    return places.reshape(maps.shape)


def curve(
    score: Scores, images: Images, maps: Maps, steps: int, random: np.random.Generator
) -> Float[np.ndarray, "image step"]:
    """The scores while 0/steps, 1/steps, ... (steps - 1)/steps of an image, the highest of the map first, are removed
    and imputed from the rest (Rong et al. 2022)."""
    places = torch.from_numpy(ranks(maps, random)).to(images.device)[:, None]
    noise = torch.Generator().manual_seed(int(random.integers(2**63)))
    removed = [impute(images, places < step / steps, NOISE, noise) for step in range(1, steps)]
    return np.stack([score(images), *map(score, removed)], 1)


def removed_mean(curve: Float[np.ndarray, "*shape step"]) -> np.ndarray:
    """The mean score over all steps at which something is removed."""
    return np.asarray(curve[..., 1:].mean(-1))
