"""How far would a number be off with other images? From halves of those at hand."""

import numpy as np
from jaxtyping import Bool, Float64

SPLITS = 10
LEAST = 20  # images: with fewer, half of them is too few for forests to say how much they differ
LEVEL = 0.95


def split(images: int, seed: int) -> Bool[np.ndarray, "split image"]:
    """Which images are in the first half: of every two that follow each other one, drawn anew for each split.

    The last of an odd number is in the second half. Fewer or more images are split in the same way, as far as they go.
    """
    first = np.random.default_rng(seed).random(((images + 1) // 2, SPLITS)) < 0.5
    halves = np.stack([first, ~first], axis=1).reshape(-1, SPLITS)[:images]
    return halves.T


def standard_error(halves: Float64[np.ndarray, "split 2 *some"]) -> Float64[np.ndarray, "*some"]:
    """Of a number that was measured on the halves of a sample, for the whole sample.

    Two halves differ by a variance of 4 s² / n, if a sample of n varies by s² / n: a quarter of their squared
    difference, mean over the splits, is the variance of the whole (half-samples, a delete-d jackknife with d = n / 2).
    """
    return np.asarray(np.sqrt(np.square(halves[:, 0] - halves[:, 1]).mean(0)) / 2)


def interval(
    value: Float64[np.ndarray, "*some"] | float, halves: Float64[np.ndarray, "split 2 *some"], images: int
) -> tuple[Float64[np.ndarray, "*some"], Float64[np.ndarray, "*some"]]:
    """The 95 % interval of a number over samples of so many images of the same kind; NaN for fewer than 20.

    Student's t; its degrees of freedom come from the number of splits and that of pairs of images, whose variances add.
    """
    if images < LEAST:
        unknown = np.full(np.shape(value), np.nan)
        return unknown, unknown
    from scipy.special import stdtrit

    freedom = 1 / (1 / len(halves) + 1 / (images // 2))
    half = stdtrit(freedom, (1 + LEVEL) / 2) * standard_error(halves)
    return np.asarray(value - half), np.asarray(value + half)
