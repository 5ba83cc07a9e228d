"""How a layer's output lies over the image: as a feature map, with the channels last, or as tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

MOST_BEFORE = 16  # tokens that are no part of the image: class tokens, registers
Size = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """`map` is (batch, channel, row, column), `channels last` (batch, row, column, channel).

    `tokens` is (batch, token, channel): those of the `grid` (rows, columns) row by row, after `before` others.
    """

    kind: Literal["map", "channels last", "tokens"] = "map"
    grid: Size = (0, 0)
    before: int = 0

    def tensor(self, output: Any) -> Tensor | None:
        """The features in a module's output: the output itself, or the first tensor of a tuple or list that may be."""
        return features_in(output, 3 if self.kind == "tokens" else 4)

    def as_map(self, features: Tensor) -> Float[Tensor, "image channel row column"]:
        """The features as a map; tokens that are no part of the image are left out."""
        if self.kind == "channels last":
            return features.permute(0, 3, 1, 2)
        if self.kind == "tokens":
            rows, columns = self.grid
            inside = features[:, self.before : self.before + rows * columns]
            return inside.reshape(len(inside), rows, columns, -1).permute(0, 3, 1, 2)
        return features


MAP = Layout()


def features_in(output: Any, axes: int) -> Tensor | None:
    """The output itself, or the first tensor with so many axes of a tuple or list."""
    parts = output if isinstance(output, tuple | list) else [output]
    return next((part for part in parts if isinstance(part, Tensor) and part.ndim == axes), None)


def find_layout(shape: torch.Size, images: torch.Size, seen: Size | None) -> Layout | None:
    """How features of this shape lie over the images; None if they do not, or have one position only.

    `seen` is the (height, width) of the last feature map before, such as the patch embedding's: tokens are as many, and
    up to 16 more that come first. Without such a map the grid has the images' proportions.
    """
    if shape[0] != images[0]:
        return None
    size = (images[2], images[3])
    if len(shape) == 4:
        rows_last = in_proportion(shape[1:3], size) and not in_proportion(shape[2:4], size)
        kind: Literal["map", "channels last"] = "channels last" if rows_last else "map"
        positions = shape[1] * shape[2] if rows_last else shape[2] * shape[3]
        return Layout(kind) if positions > 1 else None
    if len(shape) != 3 or shape[1] == 1:
        return None
    count = shape[1]
    if seen is not None and 0 <= count - seen[0] * seen[1] <= MOST_BEFORE:
        return Layout("tokens", seen, count - seen[0] * seen[1])
    grids = ((_grid(count - before, size), before) for before in range(min(MOST_BEFORE, count - 2) + 1))
    return next((Layout("tokens", grid, before) for grid, before in grids if grid is not None), None)


def _grid(positions: int, image: Size) -> Size | None:
    """Rows and columns in the exact proportions of the image."""
    rows = round((positions * image[0] / image[1]) ** 0.5)
    columns = positions // rows if rows else 0
    return (rows, columns) if rows * columns == positions and rows * image[1] == columns * image[0] else None


def in_proportion(map_size: Sequence[int], image: Size) -> bool:
    """Whether a map of this size has the image's proportions, up to one row or column."""
    return abs(map_size[0] * image[1] - map_size[1] * image[0]) <= max(image)
