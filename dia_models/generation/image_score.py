"""How far generated images are from real ones."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dia_models.data import MemoryImages
from dia_models.generation.features import FeatureNetwork, Pixels
from dia_models.generation.frechet import frechet_distance, moments


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
