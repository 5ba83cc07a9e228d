"""Masks of lungs or anything else: PNG files named as the images they belong to, cut as the network sees these."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from dia_models.data.csv_rows import csv_rows
from dia_models.data.decode import UnreadableImageError, fit_mask, image_size
from dia_models.data.framing import Size
from dia_models.data.image_source import ImageSource
from dia_models.data.images import FileImages
from dia_models.errors import ModelInputError

INDEX = "index.csv"
LEAST_MATCH = 0.5  # of a mask that was assigned to its image by content


def masks_beside(images: ImageSource) -> Path | None:
    """The masks that lie beside chest X-rays: `chest_xray_masks`, with the part's folder; None where there are none."""
    if not isinstance(images, FileImages) or images.root.parent.name != "chest_xray":
        return None
    folder = images.root.parent.with_name("chest_xray_masks") / images.root.name
    return folder if folder.is_dir() else None


def doubtful_masks(folder: Path) -> frozenset[Path]:
    """The masks that may be another image's: those with a `match_score` below 0.5 in an index.csv.

    It lies in the folder or in the one above, and names masks by their path from where it lies, in the column `mask`.
    Raises ModelInputError for one that cannot be read.
    """
    index = next((place / INDEX for place in (folder, folder.parent) if (place / INDEX).is_file()), None)
    if index is None:
        return frozenset()
    header, *rows = [cells for _, cells in csv_rows(index, "masks", "give a CSV of masks and match_scores")] or [[]]
    if not {"mask", "match_score"} <= set(header):
        return frozenset()
    mask, score = header.index("mask"), header.index("match_score")
    try:
        return frozenset(index.parent / cells[mask] for cells in rows if float(cells[score]) < LEAST_MATCH)
    except (ValueError, IndexError) as error:
        raise ModelInputError("masks", f"{index} cannot be read as a CSV of masks and match_scores: {error}") from error


def find_masks(folder: Path, images: ImageSource, indices: Sequence[int]) -> dict[int, tuple[Path, Path]]:
    """The masks of the images that have one, and these images' files, by the image's index.

    A mask has its image's name but .png, in the same sub-folder or in none; a doubtful one (`doubtful_masks`) is none.
    Raises ModelInputError if none is found.
    """
    if not folder.is_dir():
        raise ModelInputError("masks", f"{folder} is not a folder; it takes a folder of PNG files named as the images")
    if not isinstance(images, FileImages):
        raise ModelInputError("masks", "the images of this data set are not files, so no mask can be named as they are")
    named = {i: Path(images.name(i)).with_suffix(".png") for i in indices}
    places = {i: (folder / name, folder / name.name) for i, name in named.items()}
    doubtful = doubtful_masks(folder)
    there = {i: next((path for path in places[i] if path.is_file() and path not in doubtful), None) for i in indices}
    found = {i: (path, images.paths[i]) for i, path in there.items() if path is not None}
    if not found:
        first = folder / named[indices[0]]
        raise ModelInputError("masks", f"{folder} has a mask of no image; that of the first would be {first}")
    return found


def read_mask(path: Path, image: Path, size: Size) -> Bool[np.ndarray, "height width"]:
    """What is marked, as the network sees it: where the mask is not black, scaled and cropped as the image to `size`.

    Raises ModelInputError for a mask of other proportions than its image, for one that is not readable, and for one
    that is black in the part that the network sees.
    """
    try:
        height, width = image_size(image)
        with Image.open(path, formats=("PNG",)) as opened:
            _check_proportions(path, opened, (height, width))
            mask = fit_mask(opened, (height, width), size)
    except (OSError, SyntaxError, UnreadableImageError, Image.DecompressionBombError) as error:
        raise ModelInputError("masks", f"{path} cannot be read as a PNG mask of {image.name}: {error}") from error
    if not mask.any():
        raise ModelInputError("masks", f"{path} marks nothing in the part of {image.name} that the network sees")
    return mask


def _check_proportions(path: Path, mask: Image.Image, size: tuple[int, int]) -> None:
    """Raise ModelInputError unless the mask is the image at another scale, to one pixel."""
    height, width = size
    if abs(mask.width * height - mask.height * width) > max(height, width):
        raise ModelInputError(
            "masks",
            f"{path} has {mask.width}x{mask.height} pixels, its image {width}x{height}; a mask may be larger or "
            "smaller than its image, but needs the same proportions",
        )
