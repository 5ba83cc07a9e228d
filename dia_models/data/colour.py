"""Is a picture grey, as an X-ray is, or coloured, as a photograph is?"""

import numpy as np
from jaxtyping import Float, UInt8

COLOURED = 8.0  # levels; a grey picture stored as a colour JPEG stays below 2


def colourfulness(pixels: UInt8[np.ndarray, "image height width 3"]) -> Float[np.ndarray, "image"]:
    """By how many of 255 levels the largest and the smallest of red, green and blue differ, mean over the pixels."""
    return np.asarray(np.ptp(pixels, axis=3).mean((1, 2), dtype=np.float64))
