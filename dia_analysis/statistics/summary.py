"""Mean and standard error of those values that are finite."""

from collections.abc import Sequence

import numpy as np

Values = np.ndarray | Sequence[float]


def mean(values: Values) -> float | None:
    """The mean of the finite values; None if there are none."""
    known = finite(values)
    return float(known.mean()) if known.size else None


def mean_along(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of the finite values along an axis; NaN where there are none."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        found: np.ndarray = np.where(known, values, 0).sum(axis) / known.sum(axis)
    return found


def missing(values: Values) -> int:
    """How many values are not finite."""
    return int((~np.isfinite(values)).sum())


def error(values: Values) -> float | None:
    """The standard error of the mean of the finite values; None for fewer than two."""
    known = finite(values)
    return float(known.std(ddof=1) / np.sqrt(known.size)) if known.size > 1 else None


def finite(values: Values) -> np.ndarray:
    """Those of the values that are finite."""
    array = np.asarray(values, dtype=float)
    known: np.ndarray = array[np.isfinite(array)]
    return known
