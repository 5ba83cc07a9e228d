"""What forests say about the layers of a stage: raw values, and what follows from them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

FIRST_FAR = 4  # the first layer with a source beyond its two nearest


@dataclass(frozen=True)
class Importance:
    """What forests say about a stage. The target in place i is layer i + 2, the source in place j is layer j + 1.

    `gini` sums to 1 over the sources; NaN beyond a target's sources and for a target without a number. `halves` is the
    same of forests grown on the two halves of the images, for several ways to part them. `r2` is of forests on held-out
    images, `permutation` how much of it is lost when the held-out rows' values of one source change places; `null_r2`
    and `null_permutation` are the same for forests that were fitted to other images' targets.
    """

    gini: Float64[np.ndarray, "target source"]
    halves: Float64[np.ndarray, "split half target source"]
    r2: Float64[np.ndarray, "fold target"]
    null_r2: Float64[np.ndarray, "fold target"]
    permutation: Float64[np.ndarray, "fold target source"]
    null_permutation: Float64[np.ndarray, "fold target source"]

    def above_null(self) -> Bool[np.ndarray, "target source"]:
        """Which sources matter more than any source did to any forest for the same target of other images."""
        if not len(self.permutation):
            return np.zeros(self.gini.shape, bool)
        highest = np.nan_to_num(self.null_permutation, nan=-np.inf).max((0, 2))
        above: np.ndarray = np.nan_to_num(self.permutation.mean(0), nan=-np.inf) > highest[:, None]
        return above


def beyond_two_nearest(importance: Float64[np.ndarray, "*some target source"]) -> Float64[np.ndarray, "*some target"]:
    """For each target, the share of its importance that lies beyond the two nearest layers.

    Only layers with a source beyond them have one: the fourth and later ones. NaN for the others, and without a number.
    """
    shares = np.full(importance.shape[:-1], np.nan)
    for target in range(FIRST_FAR - 2, importance.shape[-2]):
        total = importance[..., target, : target + 1].sum(-1)
        far = importance[..., target, : target - 1].sum(-1)
        shares[..., target] = far / np.where(total > 0, total, np.nan)
    return shares


def if_flat(targets: int) -> Float64[np.ndarray, "target"]:
    """What those shares are when all sources are equally important."""
    layers = np.arange(2, targets + 2)
    return np.where(layers >= FIRST_FAR, (layers - 3) / (layers - 1), np.nan)
