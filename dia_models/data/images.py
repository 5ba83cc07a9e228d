"""Images with labels: in memory, or as files that are decoded when they are needed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from dia_models.data.decode import Fit, UnreadableImageError, fit_image, read_image
from dia_models.data.framing import Framing, Size, height_and_width
from dia_models.data.warn_once import warn_once
from dia_models.errors import ModelInputError, one_line, some

UNLABELED = -1
LARGEST_SET_BYTES = 16 * 2**30


@dataclass(frozen=True)
class Batch:
    """Some images of one size, their labels and their names.

    Pixels are bytes, or numbers as the network expects them. A label is a class number (-1: none), or a row of 0 and 1.
    """

    pixels: UInt8[Tensor, "image height width channel"] | Float[Tensor, "image channel height width"]
    labels: Int64[Tensor, "image"] | Float[Tensor, "image class"]
    names: tuple[str, ...]


def resize_crop(
    pixels: UInt8[Tensor, "image height width channel"], size: Size | None, channels: int
) -> UInt8[Tensor, "image h w c"]:
    """Images scaled to cover `size` and cropped to its center, gray or in color; untouched if they are so already."""
    fits = size is None or (not isinstance(size, Framing) and tuple(pixels.shape[1:3]) == size)
    if fits and pixels.shape[3] == channels:
        return pixels
    arrays = pixels.cpu().numpy()
    single = [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in arrays]
    return torch.from_numpy(np.stack([fit_image(image, size, channels) for image in single])).to(pixels.device)


@dataclass(frozen=True)
class MemoryImages:
    """Images held as one tensor of bytes. Images of one of the `groups`, such as a patient, belong together."""

    unreadable: ClassVar[Mapping[str, str]] = MappingProxyType({})
    grouping: ClassVar[str | None] = None
    pixels: UInt8[Tensor, "image height width channel"]
    labels: Int64[Tensor, "image"]
    classes: tuple[str, ...]
    names: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.pixels.shape[3]

    def name(self, index: int) -> str:
        """The file's name, or `#index`."""
        return f"#{index}" if self.names is None else self.names[index]

    @property
    def group_of(self) -> Callable[[str], str] | None:
        """The group that an image belongs to, by its name."""
        if self.groups is None:
            return None
        return dict(zip(map(self.name, range(len(self))), self.groups, strict=True)).__getitem__

    def take(self, indices: Int64[Tensor, "chosen"]) -> "MemoryImages":
        """The images at these indices, in that order."""
        names, groups = (
            None if given is None else tuple(given[i] for i in indices.tolist()) for given in (self.names, self.groups)
        )
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices], names=names, groups=groups)

    def to(self, device: torch.device) -> "MemoryImages":
        """The same images on another device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def batches(self, indices: Sequence[int], batch_size: int, size: Size | None, channels: int) -> Iterator[Batch]:
        """Give the images at these indices, resized to `size` (height, width), with 1 or 3 channels."""
        for start in range(0, len(indices), batch_size):
            chosen = torch.as_tensor(indices[start : start + batch_size])
            names = tuple(self.name(i) for i in chosen.tolist())
            yield Batch(resize_crop(self.pixels[chosen], size, channels), self.labels[chosen], names)


@dataclass(frozen=True)
class FileImages:
    """Image files, decoded batch by batch on `workers` threads.

    `group_of` gives the group that a file belongs to, such as a patient, by its name; `grouping` says how, in words.
    `rows` are the labels of images of several classes at once, a 0 or 1 for each of the `classes`, NaN where it is not
    known; `by_number` says that labels are numbers of the network's outputs. A file that cannot be read is skipped and
    remembered in `unreadable` (name and reason), unless `strict`; `treated` is what was done to values of DICOM files.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    workers: int = 2
    strict: bool = False
    group_of: Callable[[str], str] | None = None
    grouping: str | None = None
    rows: tuple[tuple[float, ...], ...] | None = None
    by_number: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)
    treated: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, indices: Sequence[int], batch_size: int, size: Size | None, channels: int) -> Iterator[Batch]:
        """Give the images at these indices, resized to `size` (height, width), with 1 or 3 channels.

        Raises ModelInputError for unreadable files if `strict`, or if all are.
        """
        given = 0
        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            for start in range(0, len(indices), batch_size):
                chosen = indices[start : start + batch_size]
                decoded = list(pool.map(lambda i: self.read(i, size, channels), chosen))
                kept = [(i, image) for i, image in zip(chosen, decoded, strict=True) if image is not None]
                if kept:
                    given += len(kept)
                    yield self._batch([i for i, _ in kept], [image for _, image in kept])
        if not given:
            first = "".join(f" ({name}: {why})" for name, why in list(self.unreadable.items())[:1])
            raise ModelInputError(
                "data", f"none of the {len(indices)} files asked for in {self.root} can be read{first}"
            )

    def read(
        self, index: int, size: Size | None, channels: int, fit: Fit | None = None
    ) -> UInt8[np.ndarray, "height width channel"] | None:
        """Decode one file as `read_image` does; None if it cannot be read. Raises ModelInputError if `strict`."""
        try:
            tell = partial(self.treated.__setitem__, self.name(index))
            return read_image(self.paths[index], size, channels, fit, tell=tell)
        except UnreadableImageError as error:
            if self.strict:
                raise ModelInputError("data", f"{self.paths[index]}: {error}") from error
            self.unreadable[self.name(index)] = str(error)
            return None

    def take(self, indices: Sequence[int]) -> "FileImages":
        """The files at these indices, in that order."""
        paths, labels = tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices)
        rows = None if self.rows is None else tuple(self.rows[i] for i in indices)
        return replace(self, paths=paths, labels=labels, rows=rows, unreadable={}, treated={})

    def load(self, size: Size | None, channels: int) -> MemoryImages:
        """Decode every file into memory. Raises ModelInputError if that would take more than 16 GiB."""
        height, width = (0, 0) if size is None else height_and_width(size)
        if (need := len(self) * height * width * channels) > LARGEST_SET_BYTES:
            raise ModelInputError(
                "data",
                f"{len(self)} images of {height}x{width} take {need / 2**30:.0f} GiB; at most 16 fit (training with "
                "augment=resized_crop_flip reads them when they are needed)",
            )
        parts = list(self.batches(range(len(self)), 1024, size, channels))
        _check_one_size(part.pixels.shape[1:] for part in parts)
        names = tuple(name for part in parts for name in part.names)
        return MemoryImages(
            torch.cat([part.pixels for part in parts]),
            torch.cat([part.labels for part in parts]),
            self.classes,
            names,
            None if self.group_of is None else tuple(map(self.group_of, names)),
        )

    def name(self, index: int) -> str:
        """The file's path below the data's folder."""
        return self.paths[index].relative_to(self.root).as_posix()

    def _batch(self, indices: list[int], images: list[np.ndarray]) -> Batch:
        _check_one_size(image.shape for image in images)
        if self.rows is None:
            labels = torch.tensor([self.labels[i] for i in indices], dtype=torch.int64)
        else:
            labels = torch.tensor([self.rows[i] for i in indices], dtype=torch.float32)
        return Batch(torch.from_numpy(np.stack(images)), labels, tuple(self.name(i) for i in indices))


def _check_one_size(shapes: Iterable[Sequence[int]]) -> None:
    sizes = sorted({f"{height}x{width}" for height, width, _ in shapes})
    if len(sizes) > 1:
        some = ", ".join(sizes[:5]) + (", ..." if len(sizes) > 5 else "")
        raise ModelInputError("image_size", f"the images have several sizes ({some}); choose one with image_size")


StoredImages = MemoryImages | FileImages


def warn_of_unreadable(unreadable: Mapping[str, str]) -> None:
    """Warn of images that could not be read, given each one's name and reason: how many, and the first few."""
    if unreadable:
        first = [f"{name} ({one_line(reason, 60)})" for name, reason in sorted(unreadable.items())]
        what = "image cannot be read and is" if len(first) == 1 else "images cannot be read and are"
        warn_once(f"{len(first)} {what} left out: {some(first, 2, 100)}")


def evenly_spaced(count: int, total: int) -> list[int]:
    """Indices at equal distances, so that a part of a set that is sorted by class has all classes.

    Args:
        count: How many.
        total: How many there are to choose from.

    Returns:
        `count` whole numbers from 0 to total - 1, rising.
    """
    return [i * total // count for i in range(count)]
