"""Image files that are decoded at one size when they are needed: sets that do not fit into memory."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from dia_models.data.images import Batch, FileImages, warn_of_unreadable
from dia_models.data.random_crop import random_part

AHEAD = 3
"""Batches that are decoded while the network computes."""

Decoding = tuple[int, Future[UInt8[np.ndarray, "height width channel"] | None]]


@dataclass(frozen=True)
class StreamedImages:
    """Image files as images of one size (height, width) with 1 or 3 channels."""

    files: FileImages
    size: tuple[int, int]
    channels: int

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names."""
        return self.files.classes

    @cached_property
    def labels(self) -> Int64[Tensor, "image"]:
        """The class of each."""
        return torch.tensor(self.files.labels, dtype=torch.int64)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The group that each belongs to, such as a patient, if there are any."""
        group_of = self.files.group_of
        return None if group_of is None else tuple(group_of(self.files.name(i)) for i in range(len(self)))

    def take(self, indices: Int64[Tensor, "chosen"]) -> "StreamedImages":
        """The images at these indices, in that order."""
        return replace(self, files=self.files.take(indices.tolist()))

    def to(self, device: torch.device) -> "StreamedImages":
        """The same: files lie on no device."""
        return self

    def batches(self, indices: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """Give the images at these indices."""
        return self.files.batches(indices, batch_size, self.size, self.channels)

    def decode(
        self, batches: Sequence[Sequence[int]], seed: int | None
    ) -> Iterator[tuple[UInt8[Tensor, "shown height width channel"], Int64[Tensor, "batch"]]]:
        """Give pixels and labels of the images at each batch's indices, decoded ahead on the files' `workers` threads.

        With a `seed`, each image is a random part of itself that depends on the seed and its index alone. Images that
        cannot be read are left out, with a warning at the end; a batch of which none is left is one black image without
        a label.
        """
        waiting: deque[list[Decoding]] = deque()
        with ThreadPoolExecutor(max(self.files.workers, 1)) as pool:
            try:
                for indices in batches:
                    waiting.append([(i, pool.submit(self._read, i, seed)) for i in indices])
                    if len(waiting) > AHEAD:
                        yield self._batch(waiting.popleft())
                while waiting:
                    yield self._batch(waiting.popleft())
                warn_of_unreadable(self.files.unreadable)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, index: int, seed: int | None) -> UInt8[np.ndarray, "height width channel"] | None:
        if seed is None:
            return self.files.read(index, self.size, self.channels)
        random = np.random.default_rng((seed, index))
        fit = partial(random_part, size=self.size, channels=self.channels, random=random)
        return self.files.read(index, self.size, self.channels, fit)

    def _batch(
        self, decoding: list[Decoding]
    ) -> tuple[UInt8[Tensor, "shown height width channel"], Int64[Tensor, "batch"]]:
        images = [(i, image) for i, future in decoding if (image := future.result()) is not None]
        pixels = [image for _, image in images] or [np.zeros((*self.size, self.channels), dtype=np.uint8)]
        return torch.from_numpy(np.stack(pixels)), self.labels[[i for i, _ in images]]
