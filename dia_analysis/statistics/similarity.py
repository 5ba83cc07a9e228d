"""How alike are two maps? Rank correlation and structural similarity, as in Adebayo et al. 2018."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from dia_analysis.statistics.pearson import pearson

WINDOW = 7  # positions; fewer for maps that have fewer
STABLE = (0.01**2, 0.03**2)  # Wang et al.'s constants for values in 0..1

Maps = Float[np.ndarray, "image height width"]


def spearman(first: Maps, second: Maps) -> Float[np.ndarray, "image"]:
    """Spearman's rank correlation of each two maps, over positions; ties share their mean rank.

    NaN where one of the two is constant or not finite.
    """
    flat = np.stack([first.reshape(len(first), -1), second.reshape(len(second), -1)], 1)
    finite = np.isfinite(flat).all((1, 2))
    ranks = rankdata(np.where(finite[:, None, None], flat, 0), axis=2)
    return np.where(finite, pearson(torch.from_numpy(ranks))[0][:, 0, 1].numpy(), np.nan)


def ssim(first: Maps, second: Maps) -> Float[np.ndarray, "image"]:
    """Structural similarity (Wang et al. 2004) of each two maps, each scaled to 0..1.

    The mean over all windows of 7x7 positions that lie within the map. NaN where one of the two is constant or not
    finite. (torchmetrics' version pads maps that are hardly larger than a window.)
    """
    a, b = (torch.from_numpy(_scaled(maps))[:, None].double() for maps in (first, second))
    mean_a, mean_b = _window_means(a), _window_means(b)
    covariance = _window_means(a * b) - mean_a * mean_b
    variances = _window_means(a * a) - mean_a**2 + _window_means(b * b) - mean_b**2
    likeness = (2 * mean_a * mean_b + STABLE[0]) * (2 * covariance + STABLE[1])
    values = likeness / ((mean_a**2 + mean_b**2 + STABLE[0]) * (variances + STABLE[1]))
    result: np.ndarray = values.mean((1, 2, 3)).numpy()
    return result


def _window_means(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, (min(WINDOW, maps.shape[2]), min(WINDOW, maps.shape[3])), stride=1)


def _scaled(maps: Maps) -> Maps:
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
        scaled: np.ndarray = (maps - low) / (high - low)
        return scaled
