"""95 % intervals of shares, and of differences between two networks on the same images."""

from math import sqrt

import numpy as np
from jaxtyping import Float

from dia_analysis.statistics.intervals import LEVEL, NORMAL, Estimate, student

ByImage = Float[np.ndarray, "image"]


def clopper_pearson(right: ByImage) -> Estimate:
    """The share of images that are right, with Clopper and Pearson's interval (1934).

    An image counts for a part of one where it is right in some of several draws; the interval is then a little too
    wide. NaN without images.
    """
    from scipy.stats import beta  # takes long to import

    images, count = len(right), float(right.sum())
    if not images:
        return Estimate(np.nan)
    low = float(beta.ppf(1 - LEVEL, count, images - count + 1)) if count > 0 else 0.0
    high = float(beta.ppf(LEVEL, count + 1, images - count)) if count < images else 1.0
    return Estimate(count / images, low, high, images)


def mean_difference(differences: ByImage) -> Estimate:
    """The mean of differences by image, with Student's interval; those that are not finite are left out.

    NaN without images, no interval for one.
    """
    known = differences[np.isfinite(differences)]
    images = len(known)
    if images < 2:
        return Estimate(float(known.mean()) if images else np.nan, images=images)
    value, reach = float(known.mean()), student(images - 1) * float(known.std(ddof=1)) / sqrt(images)
    return Estimate(value, value - reach, value + reach, images)


def share_difference(differences: ByImage) -> Estimate:
    """The difference of two shares over the same images, from -1, 0 or 1 (or between, over draws) by image.

    The interval is Bonett and Price's (2012), which keeps a width where no image changes. NaN without images.
    """
    images = len(differences)
    if not images:
        return Estimate(np.nan)
    value = float(differences.mean())
    more, less = ((float(np.maximum(sign * differences, 0).sum()) + 1) / (images + 2) for sign in (1, -1))
    reach = NORMAL * sqrt((more + less - (more - less) ** 2) / (images + 2))
    return Estimate(value, max(more - less - reach, -1.0), min(more - less + reach, 1.0), images)
