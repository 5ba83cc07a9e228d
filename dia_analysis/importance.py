"""What forests say about the layers of a stage: raw values, and what follows from them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64


@dataclass(frozen=True)
class Importance:
    """What forests say about a stage. The target in place i is layer i + 2, the source in place j is layer j + 1.

    `gini` sums to 1 over the sources; NaN beyond a target's sources and for a target without a number. `r2` is of
    forests on held-out images, `permutation` how much of it is lost when the held-out rows' values of one source
    change places; `null_r2` and `null_permutation` are the same for forests that were fitted to a shuffled target.
    """

    gini: Float64[np.ndarray, "repeat target source"]
    r2: Float64[np.ndarray, "fold target"]
    null_r2: Float64[np.ndarray, "fold target"]
    permutation: Float64[np.ndarray, "fold target source"]
    null_permutation: Float64[np.ndarray, "fold target source"]

    def above_null(self) -> Bool[np.ndarray, "target source"]:
        """Which sources matter more than any source did to any forest for the same target, shuffled."""
        if not len(self.permutation):
            return np.zeros(self.gini.shape[1:], bool)
        highest = np.nan_to_num(self.null_permutation, nan=-np.inf).max((0, 2))
        above: np.ndarray = np.nan_to_num(self.permutation.mean(0), nan=-np.inf) > highest[:, None]
        return above


def beyond_two_nearest(importance: Float64[np.ndarray, "repeat target source"]) -> Float64[np.ndarray, "repeat"]:
    """The share of the importance that lies beyond the two nearest layers, mean over targets.

    Only layers with a source beyond them count: the fourth and later ones. NaN if none of them has a number.
    """
    totals = [importance[:, t, : t + 1].sum(1) for t in range(2, importance.shape[1])]
    far = [
        importance[:, t, : t - 1].sum(1) / np.where(total > 0, total, np.nan) for t, total in enumerate(totals, start=2)
    ]
    shares = np.array(far).reshape(-1, len(importance))
    defined = ~np.isnan(shares)
    total: np.ndarray = np.where(defined, shares, 0).sum(0)
    return total / np.where(defined.any(0), defined.sum(0), np.nan)
