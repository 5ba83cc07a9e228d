"""The Fréchet distance between two sets of images, in the features of a network (Heusel et al. 2017)."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from dia_models.data import MemoryImages
from dia_models.errors import ModelInputError
from dia_models.generation.features import FeatureNetwork, Pixels

NEGATIVE = -1e-6  # an eigenvalue of a covariance, as a part of the largest, that rounding explains


@dataclass(frozen=True)
class Moments:
    """How many vectors there are, their mean and their covariance (n - 1), in float64."""

    count: int
    mean: Float[np.ndarray, "feature"]
    covariance: Float[np.ndarray, "feature feature"]


def moments(features: Float[np.ndarray, "image feature"]) -> Moments:
    """Mean and covariance. Raises ModelInputError for fewer than two images, and for features that are not finite."""
    values = np.asarray(features, dtype=np.float64)
    if len(values) < 2:
        raise ModelInputError("images", f"{len(values)} given; a Fréchet distance needs at least 2 on each side")
    if not np.isfinite(values).all():
        raise ModelInputError("images", "their features are not all finite, so they have no Fréchet distance")
    return Moments(len(values), values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False)))


def frechet_distance(first: Moments, second: Moments) -> float:
    """The squared Wasserstein-2 distance of the normal distributions with these moments.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The trace of the root is the sum of the singular values of C1^(1/2)
    C2^(1/2), which stays real where there are fewer images than features. Raises ValueError for what is no covariance.
    """
    from scipy import linalg

    gap = first.mean - second.mean
    roots = [_root(side.covariance) for side in (first, second)]
    shared = linalg.svdvals(roots[0] @ roots[1]).sum()
    total = np.trace(first.covariance) + np.trace(second.covariance)
    return max(0.0, float(gap @ gap + total - 2 * shared))


def _root(covariance: Float[np.ndarray, "feature feature"]) -> Float[np.ndarray, "feature feature"]:
    from scipy import linalg

    values, vectors = linalg.eigh(covariance)
    if values.min() < NEGATIVE * max(values.max(), 0):
        raise ValueError(f"a covariance has no negative eigenvalue, but this one has {values.min():.3g}")
    root: Float[np.ndarray, "feature feature"] = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


@dataclass(frozen=True)
class ImageScore:
    """A Fréchet distance with what it depends on: both numbers of images, and the network whose features are compared.

    It is biased upward where there are few images, so that only distances with the same numbers can be compared. In
    the features of Inception it is the FID.
    """

    distance: float
    images: int
    reference_images: int
    features: str
    features_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def score_images(
    generated: Iterable[Pixels], real: MemoryImages, network: FeatureNetwork, device: torch.device
) -> ImageScore:
    """Compare images with real ones. Raises ModelInputError for fewer than two on a side."""
    made, reference = moments(network(generated, device)), moments(network.of(real, device))
    distance = frechet_distance(made, reference)
    return ImageScore(distance, made.count, reference.count, network.name, network.sha256)
