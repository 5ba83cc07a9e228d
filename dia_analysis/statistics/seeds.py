"""What several seeds say together: their median, and an interval for other seeds."""

from collections.abc import Sequence

import numpy as np

LEAST = 3  # fewer have no interval


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's interval for the mean over seeds, n - 1 degrees of freedom; None of fewer than three.

    Infinite values make it as wide as it can be on their side.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < LEAST:
        return None
    if not np.isfinite(numbers).all():
        return float(numbers.min()), float(numbers.max())
    from scipy.stats import t  # takes long to import

    margin = t.ppf((1 + level) / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers))
    return float(numbers.mean() - margin), float(numbers.mean() + margin)
