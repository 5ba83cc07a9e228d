"""Train on fewer images."""

import torch
from jaxtyping import Int64
from torch import Tensor

from dia_models.data.splits import Images
from dia_models.errors import ModelInputError


def balanced_subset(images: Images, count: int, seed: int) -> Images:
    """`count` images drawn at random, as many of each class as of every other where there are enough.

    The same seed draws the same images, and more of them with a larger `count`. Raises ModelInputError if there are
    fewer.
    """
    if count > len(images):
        raise ModelInputError("set", f"training_images={count}: there are {len(images)} images to train on")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    turns = _turns(images.labels[order])
    chosen = order[turns.argsort(stable=True)[:count]]
    return images.take(chosen.sort().values)


def _turns(labels: Int64[Tensor, "image"]) -> Int64[Tensor, "image"]:
    """How many images of the same class come before each."""
    turns = torch.zeros_like(labels)
    for label in sorted(set(labels.tolist())):
        of_class = labels == label
        turns[of_class] = torch.arange(int(of_class.sum()))
    return turns
