"""A random part of an image, scaled to one size: the augmentation that networks for ImageNet are trained with."""

from math import exp, log, sqrt

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

SMALLEST_AREA = 0.08
FLATTEST = 3 / 4
TRIES = 10

Box = tuple[int, int, int, int]


def random_part(
    image: Image.Image, size: tuple[int, int], channels: int, random: np.random.Generator
) -> UInt8[np.ndarray, "height width channel"]:
    """Cut a part out, scale it to `size` (height, width) and mirror half of the parts.

    The part has 8 to 100 % of the image's area and sides of a ratio from 3/4 to 4/3 (Szegedy et al. 2015).
    """
    box = _box(image.width, image.height, random)
    part = image.convert("L" if channels == 1 else "RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR, box)
    part = ImageOps.mirror(part) if random.random() < 0.5 else part
    return np.array(part, dtype=np.uint8).reshape(*size, channels)


def _box(width: int, height: int, random: np.random.Generator) -> Box:
    """Left, top, right and bottom. An image that is too flat for ten tries gives its middle."""
    for _ in range(TRIES):
        area = width * height * random.uniform(SMALLEST_AREA, 1)
        ratio = exp(random.uniform(log(FLATTEST), -log(FLATTEST)))
        wide, high = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(random.integers(width - wide + 1)), int(random.integers(height - high + 1))
            return left, top, left + wide, top + high
    wide, high = min(width, round(height / FLATTEST)), min(height, round(width / FLATTEST))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high
