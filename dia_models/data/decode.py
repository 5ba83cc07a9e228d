"""One image file to one array of bytes."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from dia_models.data import dicom
from dia_models.data.framing import Framing, Size
from dia_models.data.warn_once import warn_once
from dia_models.errors import one_line

PICTURES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm", ".pnm"}
)
SUFFIXES = PICTURES | dicom.SUFFIXES
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of Pillow's others, some run external programs
LARGEST_PIXELS = 64_000_000
LONGEST_REASON = 200  # characters, so that a line that names the file too stays within 300
DARK = 2**14  # 16-bit values below this make a picture with at most a quarter of white's brightness
Fit = Callable[[Image.Image], UInt8[np.ndarray, "height width channel"]]
ORIENTATION, FIRST_TURNED = 0x0112, 5  # the EXIF tag; from this value on, height and width change places


def is_image(path: Path) -> bool:
    """Whether a file in a folder is an image: by its suffix; one without, or with a number, by what DICOM has in it."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return path.is_file()
    if (suffix and not suffix[1:].isdigit()) or path.name.lower() == dicom.DIRECTORY:
        return False
    return path.is_file() and dicom.has_magic(path)


class UnreadableImageError(ValueError):
    """The file is no image, is damaged, or is too large; the message is one line of at most 200 characters."""

    def __init__(self, reason: object):
        super().__init__(one_line(reason, LONGEST_REASON))


def read_image(
    path: Path,
    size: Size | None,
    channels: int,
    fit: Fit | None = None,
    *,
    as_stored: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> UInt8[np.ndarray, "height width channel"]:
    """Decode an image file to (height, width, channels) bytes; `channels` is 1 (gray) or 3 (RGB).

    16-bit images keep their upper 8 bits, with a warning if those are nearly empty; transparency is laid on white; the
    camera's orientation is applied, unless the pixels are wanted `as_stored`; of several frames the first is read, with
    a warning. DICOM files are seen through their window (`dicom.read_dicom`); what was done to one is told to `tell`.
    With `size` (height, width) an image of another size is scaled until it covers that size, then cropped to
    its center, unless `fit` brings it to that size. Raises UnreadableImageError, naming the reason.
    """
    try:
        image = _open(path, as_stored, tell)
        return fit_image(image, size, channels) if fit is None else fit(image)
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image in a known format") from error
    except UnreadableImageError:
        raise
    except Exception as error:  # a damaged file can make Pillow's decoders raise almost anything
        raise UnreadableImageError(error) from error


def _open(path: Path, as_stored: bool, tell: Callable[[str], None]) -> Image.Image:
    if path.stat().st_size == 0:
        raise UnreadableImageError("the file is empty")
    if dicom.is_dicom(path):
        pixels, done = dicom.read_dicom(path, LARGEST_PIXELS)
        tell(done)
        return Image.fromarray(pixels)
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > LARGEST_PIXELS:
            raise UnreadableImageError(f"{image.width}x{image.height} pixels are too many")
        bits = _bits(image)
        first = _eight_bit(image.copy() if as_stored else ImageOps.exif_transpose(image), bits, path.name)
        if _has_more_frames(image):
            text = f"{path.name} has several frames (an animation, or pages); of each such image the first is read"
            warn_once(text, "several frames")
        return first


def _has_more_frames(image: Image.Image) -> bool:
    """Whether there is a second frame. In an MPO, which phones write as JPEG, it is a preview or a depth map."""
    with suppress(Exception):  # the first frame is read; damage behind it does not matter
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    return False


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, as it is to be seen. Raises UnreadableImageError."""
    try:
        if dicom.is_dicom(path):
            return dicom.dicom_size(path)
        with Image.open(path, formats=FORMATS) as image:
            turned = image.getexif().get(ORIENTATION, 1) >= FIRST_TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:
        raise UnreadableImageError(error) from error


def fit_mask(image: Image.Image, of: tuple[int, int], size: Size) -> Bool[np.ndarray, "height width"]:
    """Where a mask is not black, as `fit_image` does with the image that it belongs to, `of` this height and width."""
    if image.width * image.height > LARGEST_PIXELS:
        raise UnreadableImageError(f"{image.width}x{image.height} pixels are too many")
    marked = Image.fromarray(np.asarray(image.convert("L")) > 0)
    if isinstance(size, Framing):
        return np.asarray(size.mask(marked, of))
    return np.asarray(ImageOps.fit(marked, (size[1], size[0]), Image.Resampling.NEAREST))


def fit_image(image: Image.Image, size: Size | None, channels: int) -> UInt8[np.ndarray, "height width channel"]:
    """An 8-bit image as an array, gray (1 channel) or RGB (3), scaled to cover `size` and cropped to its center.

    A `Framing` scales in a way of its own.
    """
    image = image.convert("L" if channels == 1 else "RGB")
    if isinstance(size, Framing):
        image = size.image(image)
    elif size is not None and image.size != (size[1], size[0]):
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8).reshape(image.height, image.width, channels)


def _bits(image: Image.Image) -> int:
    """How many bits a value has in the file, of an image that is not read yet: 8, 12 or 16."""
    stored = str(getattr(image, "tile", ""))
    if "I;12" in stored:
        return 12
    return 16 if image.mode.startswith("I") or ";16" in stored else 8


def _eight_bit(image: Image.Image, bits: int, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_upper_byte(image, bits, name))
    if image.mode == "F":
        raise UnreadableImageError("floating-point values have no known range; save the image with 8 or 16 bits")
    if bits == 16:  # of colors, the upper 8 bits have been read
        ranges = zip(image.getbands(), np.reshape(image.getextrema(), (-1, 2)), strict=True)
        _warn_if_dark(max(int(high) for band, (_, high) in ranges if band != "A") << 8, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def _upper_byte(image: Image.Image, bits: int, name: str) -> UInt8[np.ndarray, "height width"]:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65_535:
        raise UnreadableImageError(f"values outside 0 to 65535 in an image of mode {image.mode}")
    if bits == 16:
        _warn_if_dark(int(values.max()), name)
    return (values.astype(np.uint32) >> (bits - 8)).astype(np.uint8)


def _warn_if_dark(highest: int, name: str) -> None:
    if 0 < highest < DARK:
        warn_once(
            f"{one_line(name, 60)} has 16 bits but no value above {DARK - 1}; white is 65535, so that such images are "
            "dark or black. If they have 12 bits, multiply their values by 16 (10 bits: 64, 8 bits: 256) and save them",
            "dark 16-bit images",
        )
