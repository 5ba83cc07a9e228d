"""Images out of noise, with a network that predicts noise."""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from dia_models.generation.diffusion import TIME_FACTOR, Images, Times, denoise
from dia_models.training.batches import epoch_seed

STEPS = 50  # as U-ViT's authors take to choose among networks
Pixels = UInt8[Tensor, "image height width channel"]


class NotFiniteImagesError(ArithmeticError):
    """A network's noise is infinite or not a number, and so are the images."""


@torch.inference_mode()
def generate(
    model: nn.Module,
    shape: tuple[int, int, int],
    numbers: range,
    device: torch.device,
    *,
    seed: int = 0,
    steps: int = STEPS,
    batch_size: int = 256,
) -> Iterator[Pixels]:
    """Batches of images of a shape (channel, height, width); the model is left in evaluation mode.

    The noise that an image begins as depends on nothing but the seed and its number. Raises NotFiniteImagesError.
    """
    model.eval()

    def predict(images: Images, times: Times) -> Images:
        noise: Images = model(images, TIME_FACTOR * times).float()
        return noise

    for first in range(numbers.start, numbers.stop, batch_size):
        part = range(first, min(first + batch_size, numbers.stop))
        noise = torch.stack([_noise(shape, epoch_seed(seed, number)) for number in part])
        images = denoise(predict, noise.to(device), steps)
        if not images.isfinite().all():
            raise NotFiniteImagesError("the network's noise is not finite, so it generates no images")
        yield to_pixels(images).cpu()


def _noise(shape: tuple[int, int, int], seed: int) -> Float[Tensor, "channel height width"]:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def to_pixels(images: Images) -> Pixels:
    """Values from -1 to 1 as bytes; what lies outside is cut off."""
    return ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def picture(pixels: UInt8[Tensor, "height width channel"]) -> Image.Image:
    """One image, gray or in color."""
    array = pixels.numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def grid(pixels: Pixels, columns: int, scale: int = 1) -> Image.Image:
    """Images side by side, row by row, a black line between them, each pixel `scale` pixels wide."""
    framed = torch.nn.functional.pad(pixels, (0, 0, 0, 1, 0, 1))
    missing = framed.new_zeros(-len(framed) % columns, *framed.shape[1:])
    rows = torch.cat([framed, missing]).reshape(-1, columns, *framed.shape[1:]).permute(0, 2, 1, 3, 4)
    whole = picture(rows.flatten(2, 3).flatten(0, 1))
    return whole.resize((whole.width * scale, whole.height * scale), Image.Resampling.NEAREST)


def save_pictures(pixels: Pixels, folder: Path, first: int) -> None:
    """Write `000000.png` and so on, numbered from `first`."""
    for number, image in enumerate(pixels, first):
        picture(image).save(folder / f"{number:06}.png")
