"""One image file to one array of bytes."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of Pillow's others, some run external programs
LARGEST_PIXELS = 64_000_000


class UnreadableImageError(ValueError):
    """The file is no image, is damaged, or is too large."""


def read_image(path: Path, size: tuple[int, int] | None, channels: int) -> UInt8[np.ndarray, "height width channel"]:
    """Decode an image file to (height, width, channels) bytes; `channels` is 1 (grey) or 3 (RGB).

    16-bit images keep their upper 8 bits; transparency is laid on white; the camera's orientation is applied.
    With `size` (height, width) an image of another size is scaled until it covers that size, then cropped to
    its centre. Raises UnreadableImageError, naming the reason.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise UnreadableImageError(f"{image.width}x{image.height} pixels are too many")
            return fit_image(_eight_bit(ImageOps.exif_transpose(image)), size, channels)
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image in a known format") from error
    except Exception as error:  # a damaged file can make Pillow's decoders raise almost anything
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def fit_image(
    image: Image.Image, size: tuple[int, int] | None, channels: int
) -> UInt8[np.ndarray, "height width channel"]:
    """An 8-bit image as an array, grey (1 channel) or RGB (3), scaled to cover `size` and cropped to its centre."""
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8).reshape(image.height, image.width, channels)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_upper_byte(image))
    if image.mode == "F":
        raise UnreadableImageError("floating-point values have no known range; save the image with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def _upper_byte(image: Image.Image) -> UInt8[np.ndarray, "height width"]:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65_535:
        raise UnreadableImageError(f"values outside 0 to 65535 in an image of mode {image.mode}")
    return (values.astype(np.uint32) >> 8).astype(np.uint8)
