"""The scenes that a detector is trained and tested on."""

from pathlib import Path

from dia_models.data.detection.scenes import Scenes
from dia_models.data.detection.sets import open_scenes
from dia_models.detection.average_precision import require_scoring
from dia_models.errors import ModelInputError
from dia_models.training.recipe import refuse_streaming

Parts = tuple[Scenes, Scenes]  # to train on, and to test on


def read_scenes(
    data: str,
    image_size: int | None = None,
    channels: int = 3,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    strict: bool = False,
    stream: bool = False,
) -> Parts:
    """Read what is known of the training and the test images of a data set; the images are read when needed.

    Nothing is downloaded. Raises ModelInputError for data without objects, and if the two parts' classes are not the
    same.
    """
    refuse_streaming(stream)
    require_scoring()  # better now than after twelve epochs
    if image_size is not None:
        raise ModelInputError(
            "image_size", "a detector scales images by itself; accepted: its options min_size and max_size"
        )
    if channels != 3:
        raise ModelInputError("channels", f"{channels} given; a detector takes images of 3 channels")
    train, test = (open_scenes(data, part, data_dir, strict=strict) for part in ("train", "test"))
    if test.classes != train.classes:
        raise ModelInputError("data", f"{data}: the test classes are not the training classes")
    train = train.with_objects()
    if not len(train):
        raise ModelInputError("data", f"{data}: no image has an object to train on")
    return train, test
