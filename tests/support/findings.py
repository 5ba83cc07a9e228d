"""A network's scores for many findings, as tests of what comes of them need them."""

import numpy as np

from dia_analysis.xray.findings import FindingReadings

NAMES = ("planted", "noise", "turned round", "rare")
IMAGES = 120


def finding_readings(name="network", seed=0, good=0.4):
    """A finding that is told, one that is not, one the wrong way round, one of nine images; some labels unknown."""
    random = np.random.default_rng(7)
    labels = (random.random((IMAGES, 4)) < 0.4).astype(float)
    labels[:, 3] = np.arange(IMAGES) < 9
    labels[5:15, 0] = np.nan
    noise = np.random.default_rng(seed).random((IMAGES, 4))
    known = np.nan_to_num(labels)
    scores = np.clip((1 - good) * noise + good * known * [1, 0, -1, 1] + good * (np.arange(4) == 2), 0, 1)
    names = tuple(f"{i}.png" for i in range(IMAGES))
    return FindingReadings(name, NAMES, names, names, labels, scores)
