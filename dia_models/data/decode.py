"""One image file to one array of bytes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from dia_models.data import dicom

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
SUFFIXES = PICTURES | {dicom.SUFFIX}
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of Pillow's others, some run external programs
LARGEST_PIXELS = 64_000_000
NAMED = 5  # unreadable images that a warning names
Fit = Callable[[Image.Image], UInt8[np.ndarray, "height width channel"]]
ORIENTATION, FIRST_TURNED = 0x0112, 5  # the EXIF tag; from this value on, height and width change places


def is_image(path: Path) -> bool:
    """Whether a file in a folder is an image: by its suffix; one without, or with a number, by what DICOM has in it."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return path.is_file()
    return (not suffix or suffix[1:].isdigit()) and path.is_file() and dicom.has_magic(path)


class UnreadableImageError(ValueError):
    """The file is no image, is damaged, or is too large."""


def left_out(unreadable: Mapping[str, str]) -> str:
    """A warning of images that cannot be read, by name with the reason."""
    first = [f"{name} ({reason})" for name, reason in sorted(unreadable.items())[:NAMED]]
    more = [f"and {len(unreadable) - NAMED} more"] if len(unreadable) > NAMED else []
    one = len(unreadable) == 1
    count = "1 image cannot be read and is" if one else f"{len(unreadable)} images cannot be read and are"
    return f"{count} left out: {', '.join(first + more)}"


def read_image(
    path: Path, size: tuple[int, int] | None, channels: int, fit: Fit | None = None, *, as_stored: bool = False
) -> UInt8[np.ndarray, "height width channel"]:
    """Decode an image file to (height, width, channels) bytes; `channels` is 1 (grey) or 3 (RGB).

    16-bit images keep their upper 8 bits; transparency is laid on white; the camera's orientation is applied, unless
    the pixels are wanted `as_stored`. DICOM files are seen through their window (`dicom.read_dicom`).
    With `size` (height, width) an image of another size is scaled until it covers that size, then cropped to
    its centre, unless `fit` brings it to that size. Raises UnreadableImageError, naming the reason.
    """
    image = _opened(path, as_stored)
    return fit_image(image, size, channels) if fit is None else fit(image)


def _opened(path: Path, as_stored: bool) -> Image.Image:
    try:
        if dicom.is_dicom(path):
            return Image.fromarray(dicom.read_dicom(path, LARGEST_PIXELS))
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise UnreadableImageError(f"{image.width}x{image.height} pixels are too many")
            return _eight_bit(image.copy() if as_stored else ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image in a known format") from error
    except Exception as error:  # a damaged file can make Pillow's decoders raise almost anything
        raise UnreadableImageError(" ".join(str(error).split()) or type(error).__name__) from error


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, as it is to be seen. Raises UnreadableImageError."""
    try:
        if dicom.is_dicom(path):
            return dicom.dicom_size(path)
        with Image.open(path, formats=FORMATS) as image:
            turned = image.getexif().get(ORIENTATION, 1) >= FIRST_TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:
        raise UnreadableImageError(" ".join(str(error).split()) or type(error).__name__) from error


def fit_mask(image: Image.Image, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """Where a mask is not black, scaled and cropped as `fit_image` does with the image that it belongs to."""
    if image.width * image.height > LARGEST_PIXELS:
        raise UnreadableImageError(f"{image.width}x{image.height} pixels are too many")
    marked = Image.fromarray(np.asarray(image.convert("L")) > 0)
    return np.asarray(ImageOps.fit(marked, (size[1], size[0]), Image.Resampling.NEAREST))


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
