"""Scenes: images of any size, with objects in boxes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from dia_models.data.decode import UnreadableImageError
from dia_models.errors import ModelInputError

BACKGROUND = "background"
"""The name of class 0, which no object has."""

Pixels = UInt8[Tensor, "3 height width"]


@dataclass(frozen=True)
class Objects:
    """What is to be found in an image: boxes as x1, y1, x2, y2 in pixels, labels from 1, areas in square pixels.

    Boxes and areas are float64, as in the file, so that scoring rounds nothing; training takes them in float32.
    A crowd is a box around many objects of a class that were not marked one by one.
    """

    boxes: Float[Tensor, "object 4"]
    labels: Int64[Tensor, "object"]
    areas: Float[Tensor, "object"]
    crowd: Bool[Tensor, "object"]

    def single(self) -> "Objects":
        """Those that are not crowds."""
        kept = ~self.crowd
        return Objects(self.boxes[kept], self.labels[kept], self.areas[kept], self.crowd[kept])

    def mirror(self, width: int) -> "Objects":
        """Left and right exchanged, in an image of this width."""
        x1, y1, x2, y2 = self.boxes.unbind(1)
        return replace(self, boxes=torch.stack([width - x2, y1, width - x1, y2], 1))


@dataclass(frozen=True)
class Scenes:
    """Images with objects, read one at a time by `pixels_of`; `classes` begins with the background.

    An image that cannot be read is left out and remembered in `unreadable` (name and reason), unless `strict`.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    objects: tuple[Objects, ...]
    pixels_of: Callable[[int], Pixels]
    strict: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Pixels | None:
        """An image, or None if it cannot be read. Raises ModelInputError for that if `strict`."""
        try:
            return self.pixels_of(index)
        except UnreadableImageError as error:
            if self.strict:
                raise ModelInputError("data", f"{self.names[index]}: {error}") from error
            self.unreadable[self.names[index]] = str(error)
            return None

    def take(self, indices: list[int]) -> "Scenes":
        """The images at these indices, in that order."""
        names, objects = tuple(self.names[i] for i in indices), tuple(self.objects[i] for i in indices)
        return replace(
            self, names=names, objects=objects, pixels_of=lambda i: self.pixels_of(indices[i]), unreadable={}
        )

    def with_objects(self) -> "Scenes":
        """Those to train on: with an object at least, without the crowds."""
        single = replace(self, objects=tuple(objects.single() for objects in self.objects))
        return single.take([index for index, objects in enumerate(single.objects) if len(objects.labels)])
