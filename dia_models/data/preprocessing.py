"""From bytes to a network's input, and the random changes that training makes on the way."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from jaxtyping import Float, UInt8
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    model_serializer,
    model_validator,
)
from torch import Tensor

from dia_models.data.framing import Framing, Scaling, Size
from dia_models.errors import ModelInputError

SMALLEST_STD = 1 / 255  # one gray level
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Preprocessing(BaseModel):
    """What a network's images go through: a size in pixels, then (value - mean) / std per channel, values in 0 to 1.

    Images are scaled to cover the size and cut to its center; with `scaling`, their center is cut out after that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    mean: tuple[FiniteFloat, ...] = Field(min_length=1, max_length=1024)
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = Field(min_length=1, max_length=1024)
    scaling: Scaling | None = None

    @model_validator(mode="after")
    def _one_of_each_per_channel(self) -> "Preprocessing":
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means but {len(self.std)} standard deviations")
        return self

    @model_serializer(mode="wrap")
    def _without_the_usual_way(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        values = serialize(self)
        return values if self.scaling else {name: value for name, value in values.items() if name != "scaling"}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def framing(self) -> Size:
        """The size, with the way there if it is another than the usual one."""
        if self.scaling is None:
            return self.size
        return Framing(self.size, self.scaling, tuple(min(max(round(255 * m), 0), 255) for m in self.mean))

    def at(self, height: int, width: int) -> "Preprocessing":
        """The same part of the images at another size."""
        scaling = self.scaling and self.scaling.times(height / self.height, width / self.width)
        return self.model_copy(update={"height": height, "width": width, "scaling": scaling})

    def __call__(
        self, pixels: UInt8[Tensor, "batch height width channel"] | Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Normalize; the result is laid out channels-last in memory. Numbers that are no bytes are taken as they are.

        Raises ModelInputError for these if they have other channels.
        """
        if pixels.is_floating_point():
            if pixels.shape[1] != len(self.mean):
                raise ModelInputError(
                    "data", f"float tensors of {pixels.shape[1]} channels given; the network takes {len(self.mean)}"
                )
            return pixels.contiguous(memory_format=torch.channels_last)
        scale = pixels.new_tensor([1 / (255 * s) for s in self.std], dtype=torch.float32)
        offset = pixels.new_tensor([m / s for m, s in zip(self.mean, self.std, strict=True)], dtype=torch.float32)
        return (pixels * scale - offset).permute(0, 3, 1, 2)


def channel_statistics(
    pixels: UInt8[Tensor, "image height width channel"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation of each channel.

    A deviation is at least one gray level, so that images of one color are not blown up.

    Args:
        pixels: Images of bytes; they are taken as values from 0 to 1.

    Returns:
        Means and deviations over all pixels of all images, rounded to four decimals.
    """
    values = pixels.flatten(0, 2)
    sums = torch.stack([_moments(values[i : i + 2**22]) for i in range(0, len(values), 2**22)]).sum(0)
    mean, square = sums / len(values) / torch.tensor([[255.0], [255.0**2]], dtype=torch.float64)
    return _round(mean), _round((square - mean**2).clamp(min=SMALLEST_STD**2).sqrt())


def default_preprocessing(data: str, pixels: UInt8[Tensor, "image height width channel"]) -> Preprocessing:
    """The preprocessing for a data set: CIFAR's usual mean and std, else the `channel_statistics` of its images.

    Args:
        data: The data set's name.
        pixels: Some or all of its training images, of the size that the network is to see.
    """
    if data.startswith("cifar"):
        return Preprocessing(height=32, width=32, mean=CIFAR_MEAN, std=CIFAR_STD)
    mean, std = channel_statistics(pixels)
    return Preprocessing(height=pixels.shape[1], width=pixels.shape[2], mean=mean, std=std)


def shift_and_mirror(
    pixels: UInt8[Tensor, "batch height width channel"],
    padding: int,
    mirror: bool,
    generator: torch.Generator,
) -> UInt8[Tensor, "batch height width channel"]:
    """Shift each image at random, black moving in, and mirror half of them if asked.

    Args:
        pixels: Images of bytes.
        padding: The longest shift in either direction, in pixels.
        mirror: Whether each image is mirrored, left and right, with probability 1/2.
        generator: The source of randomness, on the device of the images.

    Returns:
        New images of the same shape.
    """
    batch, height, width, _ = pixels.shape
    device = pixels.device
    shifts = torch.randint(-padding, padding + 1, (batch, 2), generator=generator, device=device)
    rows = torch.arange(height, device=device) + shifts[:, :1]
    columns = torch.arange(width, device=device).expand(batch, width)
    if mirror:
        mirrored = torch.rand(batch, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    columns = columns + shifts[:, 1:]
    padded = torch.nn.functional.pad(pixels, (0, 0, padding, padding, padding, padding))
    images = torch.arange(batch, device=device)[:, None, None]
    return padded[images, rows[:, :, None] + padding, columns[:, None, :] + padding]


def _moments(chunk: UInt8[Tensor, "pixel channel"]) -> Float[Tensor, "2 channel"]:
    values = chunk.double()
    return torch.stack([values.sum(0), values.square().sum(0)])


def _round(values: Float[Tensor, "channel"]) -> tuple[float, ...]:
    return tuple(round(v, 4) for v in values.tolist())
