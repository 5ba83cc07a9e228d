"""The chest X-rays of Kermany et al. 2018 and which of them are of one patient."""

import re
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, UInt8

CLASSES = ("NORMAL", "PNEUMONIA")
PATIENT = re.compile(r"person\d+|(?:NORMAL2-)?IM-\d+")
GROUPING = (
    "images whose file names begin with the same personN, IM-N or NORMAL2-IM-N are of one patient; a file named "
    "otherwise is a patient of its own"
)
COLORED = 8.0  # levels; a gray picture stored as a color JPEG stays below 2


def patient(name: str) -> str:
    """The patient whose image a file shows, by its name.

    `person12_virus_34.jpeg` is of `person12`; `IM-0115-0001.jpeg` and `IM-0115-0001-0002.jpeg` are of `IM-0115`,
    `NORMAL2-IM-0381-0001.jpeg` is of `NORMAL2-IM-0381`. A file named otherwise is a patient of its own.
    """
    file = name.rpartition("/")[2]
    match = PATIENT.match(file)
    return file if match is None else match[0]


def in_both(some: Iterable[str], others: Iterable[str], group_of: Callable[[str], str] = patient) -> frozenset[str]:
    """The patients that occur in both parts of the data, by their files' names.

    `personN` occurs in the published train and test parts with different pathogens. Whether these are the same
    children or the parts were numbered separately is not known, so results are given with and without them.
    """
    return frozenset(map(group_of, some)) & frozenset(map(group_of, others))


def colorfulness(pixels: UInt8[np.ndarray, "image height width 3"]) -> Float[np.ndarray, "image"]:
    """By how many of 255 levels the largest and the smallest of red, green and blue differ, mean over the pixels."""
    return np.asarray(np.ptp(pixels, axis=3).mean((1, 2), dtype=np.float64))
