"""The delete-one-group jackknife: how much would a number differ on other images?"""

import numpy as np
from jaxtyping import Float, Int64

from dia_analysis.statistics.intervals import student

LEAST_GROUPS = 10  # of fewer there is no interval


def jackknife_interval(
    value: float, without: Float[np.ndarray, "group"], sizes: Int64[np.ndarray, "group"]
) -> tuple[float, float] | None:
    """The 95 % interval of a number from what it is without each group of images.

    For groups of unlike size (Busing, Meijer and van der Leeden 1999), with Student's t of groups - 1 degrees of
    freedom. Groups without images do not count.

    Args:
        value: The number on all images.
        without: The number on all images but those of each group.
        sizes: How many images each group has.

    Returns:
        Its ends; None where there are fewer than ten groups or the number is not defined without one of them.
    """
    filled = sizes > 0
    parts, weights = without[filled], sizes.sum() / sizes[filled]
    if len(parts) < LEAST_GROUPS or not np.isfinite([value, *parts]).all():
        return None
    center = len(parts) * value - ((1 - 1 / weights) * parts).sum()
    pseudo = weights * value - (weights - 1) * parts
    error = float(np.sqrt((np.square(pseudo - center) / (weights - 1)).mean()))
    reach = student(len(parts) - 1) * error
    return value - reach, value + reach
