"""Scenes in COCO's layout: folders of images, and a JSON file of annotations for each."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import torch
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from dia_models.data.decode import LARGEST_PIXELS, UnreadableImageError, read_image
from dia_models.data.detection.scenes import BACKGROUND, Objects, Pixels, Scenes
from dia_models.data.request import Request
from dia_models.errors import ModelInputError, first_problem

LARGEST_FILE = 2 * 2**30
PARTS = {"train": "train2017", "test": "val2017"}  # the labels of test2017 are not public
LAYOUT = "{train,val}2017/ with images and annotations/instances_{train,val}2017.json"

SMALLEST_BOX = 0.01  # pixels; below, a box has no area any more in float32
Side = Annotated[int, Field(ge=1, le=65_535)]
Coordinate = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]


class _Image(BaseModel):
    id: int
    file_name: str = Field(min_length=1, max_length=1024)
    width: Side
    height: Side


class _Category(BaseModel):
    id: int
    name: str = Field(min_length=1, max_length=200)


class _Annotation(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[Coordinate, Coordinate, Coordinate, Coordinate]  # left, top, width, height
    area: Annotated[FiniteFloat, Field(ge=0)] | None = None
    iscrowd: bool = False


class _File(BaseModel):
    """What of an annotation file is used; the rest, such as outlines of objects, is passed over."""

    images: list[_Image] = Field(min_length=1)
    categories: list[_Category] = Field(min_length=1, max_length=100_000)
    annotations: list[_Annotation]


def open_coco(folder: Path, request: Request) -> Scenes:
    """The part asked for of a folder in COCO's layout; the part for testing is val2017.

    Categories become classes 1, 2, ... in the order of their ids. Boxes outside their image or without area are left
    out, with a warning that counts them. Raises ModelInputError for files that are missing, and for annotations that
    cannot be right.
    """
    part = PARTS[request.part]
    path = folder / "annotations" / f"instances_{part}.json"
    if not path.is_file() or not (folder / part).is_dir():
        lacks = path if not path.is_file() else f"{folder / part}/"
        raise ModelInputError("data", f"{lacks} is missing: put {LAYOUT} into {folder}")
    content = _read(path)
    images = sorted(content.images, key=lambda image: image.id)  # as COCO's tools do; equal scores keep this order
    _check_images(path, images)
    names = tuple(image.file_name for image in images)
    _check_files(folder / part, names)
    classes, labels = _classes(path, content.categories)
    return Scenes(
        classes,
        names,
        _objects(path, content, labels),
        lambda index: _pixels(folder / part, images[index]),
        request.strict,
    )


def _read(path: Path) -> _File:
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise ModelInputError("data", f"{path} has {size / 2**30:.1f} GiB; at most 2 are read")
        return _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelInputError("data", f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        place, _, reason = first_problem(error)
        raise ModelInputError("data", f"{path} holds no COCO annotations: {place}: {reason}") from error


def _check_images(path: Path, images: Sequence[_Image]) -> None:
    _check_unique(path, "image id", (image.id for image in images))
    _check_unique(path, "file name", (image.file_name for image in images))
    for image in images:
        name = PurePosixPath(image.file_name)
        if name.is_absolute() or ".." in name.parts or not image.file_name.isprintable() or "\\" in image.file_name:
            raise ModelInputError("data", f"{path}: the image {image.file_name!r} is not inside the folder of images")
        if image.width * image.height > LARGEST_PIXELS:
            size = f"{image.width}x{image.height}"
            raise ModelInputError("data", f"{path}: {image.file_name} has {size} pixels, which are too many")


def _check_files(folder: Path, names: Iterable[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelInputError("data", f"{folder} lacks {len(missing)} of the annotated images, first {missing[0]}")


def _check_unique(path: Path, what: str, values: Iterable[int | str]) -> None:
    value, times = Counter(values).most_common(1)[0]
    if times > 1:
        raise ModelInputError("data", f"{path}: the {what} {value!r} is given {times} times")


def _classes(path: Path, categories: Sequence[_Category]) -> tuple[tuple[str, ...], dict[int, int]]:
    """The names of the classes, and the label of each category's id."""
    _check_unique(path, "category id", (category.id for category in categories))
    _check_unique(path, "category", (category.name for category in categories))
    ordered = sorted(categories, key=lambda category: category.id)
    for category in ordered:
        if not category.name.isprintable() or category.name == BACKGROUND:
            raise ModelInputError("data", f"{path}: a category cannot be named {category.name!r}")
    labels = {category.id: label for label, category in enumerate(ordered, 1)}
    return (BACKGROUND, *(category.name for category in ordered)), labels


def _objects(path: Path, content: _File, labels: dict[int, int]) -> tuple[Objects, ...]:
    images = {image.id: image for image in content.images}
    kept: defaultdict[int, list[_Annotation]] = defaultdict(list)
    for number, annotation in enumerate(content.annotations):
        for what, value, known in (
            ("image", annotation.image_id, images),
            ("category", annotation.category_id, labels),
        ):
            if value not in known:
                raise ModelInputError("data", f"{path}: annotations.{number}: there is no {what} with id {value}")
        if _inside(annotation, images[annotation.image_id]):
            kept[annotation.image_id].append(annotation)
    if dropped := len(content.annotations) - sum(map(len, kept.values())):
        warnings.warn(f"{path}: {dropped} boxes outside their image or without area are left out", stacklevel=4)
    return tuple(_tensors(kept[number], labels) for number in sorted(images))


def _inside(annotation: _Annotation, image: _Image) -> bool:
    left, top, width, height = annotation.bbox
    across = left < image.width - SMALLEST_BOX and left + width > SMALLEST_BOX
    down = top < image.height - SMALLEST_BOX and top + height > SMALLEST_BOX
    return min(width, height) >= SMALLEST_BOX and across and down


def _tensors(annotations: Sequence[_Annotation], labels: dict[int, int]) -> Objects:
    corners = [(x, y, x + width, y + height) for x, y, width, height in (a.bbox for a in annotations)]
    areas = [a.bbox[2] * a.bbox[3] if a.area is None else a.area for a in annotations]
    return Objects(
        torch.tensor(corners, dtype=torch.float64).reshape(-1, 4),
        torch.tensor([labels[a.category_id] for a in annotations], dtype=torch.int64),
        torch.tensor(areas, dtype=torch.float64),
        torch.tensor([a.iscrowd for a in annotations], dtype=torch.bool),
    )


def _pixels(folder: Path, image: _Image) -> Pixels:
    """An image as its boxes see it: as stored, whatever orientation the camera noted, as COCO's own tools take it.

    Only if the annotations give the size of the upright image, and the stored one has another, is it turned.
    """
    path = folder / image.file_name
    for as_stored in (True, False):
        pixels = read_image(path, None, 3, as_stored=as_stored)
        if pixels.shape[:2] == (image.height, image.width):
            return torch.from_numpy(pixels).permute(2, 0, 1)
    found = f"{pixels.shape[1]}x{pixels.shape[0]}"
    raise UnreadableImageError(f"it has {found} pixels; its boxes are for {image.width}x{image.height}")
