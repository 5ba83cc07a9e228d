"""Scenes of digits: several of scikit-learn's digits on a canvas, of different sizes, none on another."""

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from dia_models.data.catalog import DIGITS_TRAIN
from dia_models.data.detection.scenes import BACKGROUND, Objects, Scenes
from dia_models.data.request import Request

SIDE = 96
SCENES = {"train": 1_000, "test": 250}
MOST_DIGITS, ATTEMPTS = 5, 20
SMALLEST_DIGIT, LARGEST_DIGIT = 20, 48  # pixels that scikit-learn's 8 are scaled to
INK = 40  # the least value that counts as part of a digit

Box = tuple[int, int, int, int]


def digit_scenes(request: Request) -> Scenes:
    """1,000 scenes to train on and 250 to test on, of digits that are not in the others; always the same ones."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    drawn = range(DIGITS_TRAIN) if request.part == "train" else range(DIGITS_TRAIN, len(pixels))
    random = np.random.default_rng(drawn.start)
    made = [_scene(pixels, digits.target, drawn, random) for _ in range(SCENES[request.part])]
    canvases = torch.from_numpy(np.stack([canvas for canvas, _ in made]))
    return Scenes(
        (BACKGROUND, *map(str, digits.target_names)),
        tuple(f"#{index}" for index in range(len(made))),
        tuple(objects for _, objects in made),
        lambda index: canvases[index].expand(3, SIDE, SIDE),
    )


def _scene(
    pixels: UInt8[np.ndarray, "digit 8 8"], targets: np.ndarray, drawn: range, random: np.random.Generator
) -> tuple[UInt8[np.ndarray, "height width"], Objects]:
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    boxes: list[Box] = []
    labels: list[int] = []
    wanted = int(random.integers(1, MOST_DIGITS + 1))
    for _ in range(ATTEMPTS):
        index = int(random.choice(drawn))
        digit = _rescale(pixels[index], int(random.integers(SMALLEST_DIGIT, LARGEST_DIGIT + 1)))
        height, width = digit.shape
        x, y = (int(random.integers(SIDE - side + 1)) for side in (width, height))
        box = (x, y, x + width, y + height)
        if len(boxes) < wanted and not any(_touch(box, other) for other in boxes):
            canvas[y : y + height, x : x + width] = digit
            boxes.append(box)
            labels.append(int(targets[index]) + 1)
    corners = torch.tensor(boxes, dtype=torch.float64)
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    return canvas, Objects(corners, torch.tensor(labels), areas, torch.zeros(len(labels), dtype=torch.bool))


def _rescale(digit: UInt8[np.ndarray, "8 8"], side: int) -> UInt8[np.ndarray, "height width"]:
    """The digit at another size, without the empty rows and columns around it."""
    large = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR))
    rows, columns = (np.flatnonzero((large >= INK).any(axis)) for axis in (1, 0))
    return large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _touch(box: Box, other: Box) -> bool:
    return all(box[i] <= other[i + 2] and other[i] <= box[i + 2] for i in (0, 1))
