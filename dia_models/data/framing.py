"""How images of any size come to a network's size: scaled, then cut to their center."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]


class Scaling(BaseModel):
    """What images are scaled to before their center is cut out, to the pixel as timm and torchvision do it.

    Images `cover` this height and width, or lie `inside` them with a border around, both with their own proportions;
    or they are `stretch`ed to them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(ge=1, le=16384)
    width: int = Field(ge=1, le=16384)
    fit: Literal["cover", "inside", "stretch"] = "cover"
    interpolation: Interpolation = "bilinear"

    def size(self, height: int, width: int) -> tuple[int, int]:
        """What an image of this height and width is scaled to, rounded as these libraries do."""
        if self.fit == "stretch":
            return self.height, self.width
        if self.fit == "cover" and self.height == self.width:
            longer = int(self.height * max(height, width) / min(height, width))
            return (self.height, longer) if height <= width else (longer, self.width)
        ratios = height / self.height, width / self.width
        ratio = min(ratios) if self.fit == "cover" else max(ratios)
        return max(round(height / ratio), 1), max(round(width / ratio), 1)

    def times(self, height: float, width: float) -> "Scaling":
        """The same for a network whose images are so many times as high and wide."""
        return self.model_copy(update={"height": round(self.height * height), "width": round(self.width * width)})

    def __str__(self) -> str:
        words = {"cover": "scaled to cover", "inside": "scaled to lie in", "stretch": "stretched to"}
        return f"{words[self.fit]} {self.height}x{self.width} ({self.interpolation})"


@dataclass(frozen=True)
class Framing:
    """The center of `size` (height, width) of images that are scaled; `fill` is a border's brightness by channel."""

    size: tuple[int, int]
    scaling: Scaling
    fill: tuple[int, ...]

    def image(self, image: Image.Image) -> Image.Image:
        """The part of an image that a network sees."""
        method = Image.Resampling[self.scaling.interpolation.upper()]
        return self._center(image, (image.height, image.width), method, self._border(len(image.getbands())))

    def mask(self, mask: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The same part of a mask, whatever its size, of an image of this height and width."""
        return self._center(mask, size, Image.Resampling.NEAREST, (0,))

    def _center(
        self, image: Image.Image, size: tuple[int, int], method: Image.Resampling, border: Sequence[int]
    ) -> Image.Image:
        height, width = self.scaling.size(*size)
        scaled = image.resize((width, height), method)
        seen = Image.new(image.mode, (self.size[1], self.size[0]), tuple(border) if len(border) > 1 else border[0])
        seen.paste(scaled, (_start(width, self.size[1]), _start(height, self.size[0])))
        return seen

    def _border(self, bands: int) -> Sequence[int]:
        if self.scaling.fit != "inside":
            return (0,) * bands
        return self.fill if len(self.fill) == bands else (round(sum(self.fill) / len(self.fill)),) * bands


Size = tuple[int, int] | Framing
"""Height and width, which images are scaled to cover before they are cut to their center, or another way there."""


def height_and_width(size: Size) -> tuple[int, int]:
    """Without the way there."""
    return size.size if isinstance(size, Framing) else size


def _start(scaled: int, seen: int) -> int:
    """Where the scaled image begins in what is seen."""
    return -round((scaled - seen) / 2) if scaled >= seen else (seen - scaled) // 2
