"""The images that a classifier, or a network that predicts noise, is trained and tested on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dia_models.data import FileImages, ImageSource, MemoryImages, StreamedImages, hold_out, open_data
from dia_models.data.images import resize_crop, warn_of_unreadable
from dia_models.data.splits import AnyImages, balanced_subset
from dia_models.errors import ModelInputError
from dia_models.training.config import RunConfig
from dia_models.training.device import usable_cores
from dia_models.training.recipe import refuse_streaming

Images = MemoryImages | StreamedImages
Parts = tuple[Images, Images]  # to train on, and to test on


def read_images(
    data: str,
    image_size: int | None = None,
    channels: int = 3,
    *,
    data_dir: Path | None = None,
    stream: bool = False,
    **how: Any,
) -> tuple[MemoryImages, MemoryImages]:
    """Read the training and the test images of a data set into memory, files at `image_size` pixels.

    `how` are options of `open_data`. Raises ModelInputError for `stream`: these do not lie in files.
    """
    refuse_streaming(stream)
    train, test = (open_data(data, part, data_dir, **how) for part in ("train", "test"))
    return _in_memory(train, image_size, channels), _in_memory(test, image_size, channels)


def find_images(
    data: str,
    image_size: int | None = None,
    channels: int = 3,
    *,
    data_dir: Path | None = None,
    stream: bool = False,
    **how: Any,
) -> None:
    """See that the images of both parts are there, without decoding files. Takes and raises as `read_images`."""
    for part in ("train", "test"):
        open_data(data, part, data_dir, **how)


def read_classes(
    data: str,
    image_size: int | None = None,
    channels: int = 3,
    *,
    data_dir: Path | None = None,
    stream: bool = False,
    **how: Any,
) -> Parts:
    """As `read_images`; with `stream` the files are read when they are needed.

    Raises ModelInputError for data without classes, if the two parts' are not the same, and for data that are no files
    if they are to be streamed.
    """
    if stream:
        found = (open_data(data, part, data_dir, workers=len(usable_cores()), **how) for part in ("train", "test"))
        train, test = (_stream(data, source, image_size, channels) for source in found)
        return _with_classes(data, train, test)
    return _with_classes(data, *read_images(data, image_size, channels, data_dir=data_dir, **how))


def split_validation(config: RunConfig, train: AnyImages) -> tuple[AnyImages, AnyImages | None]:
    """The images to train on and, if the recipe holds any out, those to validate on."""
    kept, validation = hold_out(train, config.recipe.validation, config.seed)
    if config.recipe.training_images is not None:
        kept = balanced_subset(kept, config.recipe.training_images, config.seed)
    return kept, validation


def _with_classes(data: str, train: Images, test: Images) -> Parts:
    if not train.classes:
        raise ModelInputError("data", f"{data} has no classes to train on; put each class in a folder of its own")
    if test.classes != train.classes:
        raise ModelInputError("data", f"{data}: the test classes are not the training classes")
    return train, test


def _in_memory(source: ImageSource, image_size: int | None, channels: int) -> MemoryImages:
    size = None if image_size is None else (image_size, image_size)
    if isinstance(source, MemoryImages):
        return replace(source, pixels=resize_crop(source.pixels, size, source.pixels.shape[3]))
    images = source.load(size, channels)
    warn_of_unreadable(source.unreadable)
    return images


def _stream(data: str, source: ImageSource, image_size: int | None, channels: int) -> StreamedImages:
    if not isinstance(source, FileImages):
        raise ModelInputError(
            "set", f"augment=resized_crop_flip cuts parts out of image files, and {data} has none; accepted: crop_flip"
        )
    if image_size is None:
        raise ModelInputError("image_size", "augment=resized_crop_flip needs the size of the parts, such as 224")
    return StreamedImages(source, (image_size, image_size), channels)
