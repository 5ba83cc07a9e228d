"""95 % intervals of shares, and of differences between two networks on the same images.

Images of one patient are not independent. Where patients are given, a mean's variance is that of the patients' sums,
and a share is worth as many independent images as its variance over patients says, never more than there are (Korn and
Graubard 1998). Where nothing varies over patients, each is taken as wholly alike, so that an interval keeps a width.
"""

from math import sqrt

import numpy as np
from jaxtyping import Float

from dia_analysis.statistics.intervals import LEVEL, NORMAL, Estimate, Patients, student

ByImage = Float[np.ndarray, "image"]


def clopper_pearson(right: ByImage, patients: Patients | None = None) -> Estimate:
    """The share of images that are right, with Clopper and Pearson's interval (1934).

    An image counts for a part of one where it is right in some of several draws; the interval is then a little too
    wide. NaN without images.
    """
    from scipy.stats import beta  # takes long to import

    total = len(right)
    if not total:
        return Estimate(np.nan)
    share = float(right.mean())
    images = _worth(right, patients)
    count = share * images if images < total else float(right.sum())
    low = float(beta.ppf(1 - LEVEL, count, images - count + 1)) if count > 0 else 0.0
    high = float(beta.ppf(LEVEL, count + 1, images - count)) if count < images else 1.0
    return Estimate(share, low, high, total)


def mean_difference(differences: ByImage, patients: Patients | None = None) -> Estimate:
    """The mean of differences by image, with Student's interval; those that are not finite are left out.

    NaN without images, no interval for one image or patient.
    """
    finite = np.isfinite(differences)
    known, images = differences[finite], int(finite.sum())
    if not images:
        return Estimate(np.nan)
    value = float(known.mean())
    error, number = standard_error(known - value, patients and patients.of(finite))
    if number < 2:
        return Estimate(value, images=images)
    reach = student(number - 1) * error
    return Estimate(value, value - reach, value + reach, images)


def standard_error(residuals: ByImage, patients: Patients | None) -> tuple[float, int]:
    """Of a mean over images, from what each is beyond it; and how many images, or patients, vary independently."""
    images = len(residuals)
    if patients is None or len(patients.sizes) == images:
        return (float(residuals.std(ddof=1)) / sqrt(images) if images > 1 else 0.0), images
    number = len(patients.sizes)
    return (sqrt(patients.variance(residuals / images)) if number > 1 else 0.0), number


def share_difference(differences: ByImage, patients: Patients | None = None) -> Estimate:
    """The difference of two shares over the same images, from -1, 0 or 1 (or between, over draws) by image.

    The interval is Bonett and Price's (2012), which keeps a width where no image changes. NaN without images.
    """
    total = len(differences)
    if not total:
        return Estimate(np.nan)
    value, images = float(differences.mean()), _worth(differences, patients)
    part = images / total
    more, less = ((float(np.maximum(sign * differences, 0).sum()) * part + 1) / (images + 2) for sign in (1, -1))
    reach = NORMAL * sqrt((more + less - (more - less) ** 2) / (images + 2))
    return Estimate(value, max(more - less - reach, -1.0), min(more - less + reach, 1.0), total)


def _worth(values: ByImage, patients: Patients | None) -> float:
    """How many independent images these are worth for their mean: all, where each is of another patient."""
    total = len(values)
    if patients is None or len(patients.sizes) == total:
        return float(total)
    if len(patients.sizes) < 2:
        return 1.0
    residuals = (values - values.mean()) / total
    variance, independent = patients.variance(residuals), float(residuals @ residuals) * total / (total - 1)
    if not residuals.any():
        return patients.count
    return total * min(independent / variance, 1.0) if variance > 0 else float(total)
