"""A data set that the user's own Python code gives."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from dia_models.data.decode import fit_image
from dia_models.data.framing import Size
from dia_models.data.images import UNLABELED, Batch, MemoryImages
from dia_models.data.preprocessing import Preprocessing
from dia_models.data.request import Request
from dia_models.errors import ModelInputError, one_line, some
from dia_models.user_code import UserCode

GIVEN_AS = "PIL images, uint8 arrays (height, width[, channel]) or float tensors (channel, height, width)"
IMAGE_KEYS, LABEL_KEYS = ("image", "img", "pixel_values"), ("label", "labels", "target")
Row = Float[Tensor, "class"]
Pixels = UInt8[np.ndarray, "height width channel"] | Float[Tensor, "channel height width"]


@dataclass(frozen=True)
class PythonImages:
    """Images by number as Python code gives them, read when they are needed.

    What is no float tensor is resized as the network expects it; float tensors are taken as they are. A label is the
    number of an output, or of a class in `classes` if the data names these; a row of 0 and 1, one for each output; or
    None.
    """

    unreadable: ClassVar[Mapping[str, str]] = MappingProxyType({})
    grouping: ClassVar[str | None] = None
    group_of: ClassVar[None] = None
    code: UserCode
    items: Any
    classes: tuple[str, ...]
    order: tuple[int, ...] | None = None
    _labels: dict[int, int | Row] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.items) if self.order is None else len(self.order)

    @property
    def labels(self) -> "Labels":
        """The number of each image's class, -1 for none or several; an image is read for it."""
        return Labels(self)

    def label(self, index: int) -> int | Row:
        """An image's label; -1 if it has none."""
        if index not in self._labels:
            self._item(index)
        return self._labels[index]

    def name(self, index: int) -> str:
        """`#number`."""
        return f"#{index if self.order is None else self.order[index]}"

    def take(self, indices: Sequence[int] | Int64[Tensor, "chosen"]) -> "PythonImages":
        """The images at these indices, in that order."""
        chosen = [int(index) for index in indices]
        order = tuple(chosen if self.order is None else (self.order[i] for i in chosen))
        return replace(self, order=order, _labels={})

    def batches(self, indices: Sequence[int], batch_size: int, size: Size | None, channels: int) -> Iterator[Batch]:
        """Give the images at these indices, those that are no float tensors resized, with 1 or 3 channels.

        Raises ModelInputError for what is no image or label, and for images of several kinds or sizes in one batch.
        """
        for start in range(0, len(indices), batch_size):
            chosen = [int(index) for index in indices[start : start + batch_size]]
            images = [self._fitted(index, size, channels) for index in chosen]
            yield Batch(self._stack(images), self._rows(chosen), tuple(map(self.name, chosen)))

    def preprocessing(self) -> Preprocessing | None:
        """Of float tensors, their size, and nothing else to be done; None for other images."""
        first = self._item(0)
        if not isinstance(first, Tensor):
            return None
        channels, height, width = first.shape
        return Preprocessing(height=height, width=width, mean=(0.0,) * channels, std=(1.0,) * channels)

    def load(self, size: Size | None, channels: int) -> MemoryImages:
        """All images in memory, as bytes. Raises ModelInputError for float tensors."""
        parts = list(self.batches(range(len(self)), 1024, size, channels))
        if any(part.pixels.is_floating_point() for part in parts):
            raise self._error("its images are float tensors, whose range is not known; give uint8 arrays here")
        labels = torch.cat([part.labels for part in parts])
        if labels.ndim == 2:
            raise self._error("its labels are rows of 0 and 1; give one class number an image here")
        names = tuple(name for part in parts for name in part.names)
        return MemoryImages(torch.cat([part.pixels for part in parts]), labels, self.classes, names)

    def _fitted(self, index: int, size: Size | None, channels: int) -> Pixels:
        image = self._item(index)
        if isinstance(image, Tensor):
            return image
        return fit_image(image, size, channels)

    def _item(self, index: int) -> "Image.Image | Float[Tensor, 'channel height width']":
        """An image; its label is kept."""
        place = index if self.order is None else self.order[index]
        with self.code.running(f"fails at image {place}"):
            item = self.items[place]
        image, label = _parts(item)
        self._labels[index] = self._number(label, place)
        return self._image(image, place)

    def _image(self, given: Any, place: int) -> "Image.Image | Float[Tensor, 'channel height width']":
        if isinstance(given, Image.Image):
            return given
        values = np.asarray(given) if not isinstance(given, Tensor) else given
        if (isinstance(values, Tensor) and values.is_floating_point()) or _is_float(values):
            tensor = torch.as_tensor(values).float()
            if tensor.ndim == 3:
                return tensor
        elif str(values.dtype).endswith("uint8"):
            array = np.asarray(values)
            if array.ndim == 3 and array.shape[2] == 1:
                array = array[..., 0]
            if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)):
                return Image.fromarray(array)
        shape = tuple(getattr(values, "shape", ()))
        what = f"{type(given).__name__} {shape} of {values.dtype}" if shape else f"a {type(given).__name__}"
        raise self._error(f"image {place} is {what}; accepted: {GIVEN_AS}")

    def _number(self, label: Any, place: int) -> int | Row:
        if label is None:
            return UNLABELED
        values = np.asarray(label.cpu() if isinstance(label, Tensor) else label)
        if values.ndim == 0 and values.dtype.kind in "iub" and int(values) >= 0:
            return int(values)
        if values.ndim == 1 and values.dtype.kind in "iubf" and np.isin(values, (0, 1)).all():
            return torch.as_tensor(values).float()
        raise self._error(
            f"the label of image {place} is {one_line(repr(label), 60)}; accepted: a class number from 0, a row of 0 "
            "and 1, or None"
        )

    def _stack(self, images: Sequence[Pixels]) -> Tensor:
        tensors = [torch.as_tensor(image) for image in images]
        kinds = {f"{tuple(tensor.shape)} of {tensor.dtype}" for tensor in tensors}
        if len(kinds) > 1:
            raise ModelInputError(
                "image_size",
                f"{self.code.name}: the images differ in size or kind: {some(sorted(kinds))}; give equal ones",
            )
        return torch.stack(tensors)

    def _rows(self, indices: Sequence[int]) -> Tensor:
        found = [self._labels[index] for index in indices]
        rows = [label for label in found if isinstance(label, Tensor)]
        if not rows:
            return torch.tensor(found, dtype=torch.int64)
        if len(rows) < len(found) or len({len(row) for row in rows}) > 1:
            raise self._error("some labels are rows of 0 and 1, others are not, or are of another length")
        return torch.stack(rows)

    def _error(self, text: str) -> ModelInputError:
        return ModelInputError("data", f"{self.code.name}: {text}")


@dataclass(frozen=True)
class Labels:
    """The numbers of images' classes, by the images' numbers."""

    images: PythonImages

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> int:
        label = self.images.label(index)
        return UNLABELED if isinstance(label, Tensor) else label


def open_python(name: str, request: Request) -> PythonImages:
    """Call the user's function, named `file.py:name`, and take what it gives as a data set.

    That is one with a length and items by number, or anything that can be gone through, of which the first
    `request.limit` are taken. Raises ModelInputError for what is neither, and for a training part: it has no parts.
    """
    code = UserCode(name, "data")
    if request.split == "train":
        raise code.error(f"{name} has no training part: it is looked at and tested on, not trained on")
    given = code.call({})
    if isinstance(given, DataLoader):
        raise code.error(f"{name} gives a DataLoader, which makes batches; give its data set (loader.dataset)")
    items: Any = given
    if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")) or isinstance(given, Mapping | str | Tensor):
        if not isinstance(given, Iterable) or isinstance(given, Mapping | str | Tensor):
            raise code.error(f"{name} gives a {type(given).__name__}; give a data set of (image, label)")
        with code.running("fails"):
            items = list(islice(given, request.limit))
    if not len(items):
        raise code.error(f"{name} gives no images")
    return PythonImages(code, items, tuple(map(str, getattr(given, "classes", None) or ())))


def as_pictures(
    pixels: UInt8[Tensor, "image height width channel"] | Float[Tensor, "image channel height width"],
    size: tuple[int, int],
    channels: int = 3,
) -> UInt8[np.ndarray, "image h w c"]:
    """Images as people see them, gray (1) or in color (3); of float tensors, the smallest value of each is black."""
    if not pixels.is_floating_point():
        return pixels.numpy()
    low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
    scaled = ((pixels - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
    shown = scaled[:, :3] if scaled.shape[1] >= 3 else scaled[:, :1]
    arrays = shown.permute(0, 2, 3, 1).numpy()
    single = (Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in arrays)
    return np.stack([fit_image(image, size, channels) for image in single])


def _parts(item: Any) -> tuple[Any, Any]:
    """The image and the label in an item."""
    if isinstance(item, Mapping):
        image, label = (next((item[key] for key in keys if key in item), None) for keys in (IMAGE_KEYS, LABEL_KEYS))
        return image, label
    if isinstance(item, tuple | list):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _is_float(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind == "f"
