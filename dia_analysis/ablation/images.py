"""The images of an ablation: gone through several times, and parted in halves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.batches import inputs_of, iterate_batches, labels_of

UNKNOWN = -1


@dataclass(frozen=True)
class LabelledBatch:
    """Images, and the numbers of their classes, -1 where the class is not known."""

    images: Tensor
    labels: Int64[Tensor, "image"]


class LabelledBatches:
    """Batches that can be gone through several times; of an iterator, which cannot, they are kept.

    `half` takes every other image, from the first (0) or the second (1) on. No batch has one image alone, which would
    find no other, unless there is but one in all.
    """

    def __init__(self, given: Any, half: int | None = None):
        self.given = list(given) if isinstance(given, Iterator) else given
        self.half = half

    def __iter__(self) -> Iterator[LabelledBatch]:
        waiting: LabelledBatch | None = None
        for batch in self._read():
            if not len(batch.images):
                continue
            if waiting is not None and 1 in (len(waiting.images), len(batch.images)):
                waiting = _joined(waiting, batch)
                continue
            if waiting is not None:
                yield waiting
            waiting = batch
        if waiting is not None:
            yield waiting

    def halves(self) -> tuple["LabelledBatches", "LabelledBatches"]:
        """Two parts of the images, of about the same number, with no image in both."""
        return LabelledBatches(self.given, 0), LabelledBatches(self.given, 1)

    def _read(self) -> Iterator[LabelledBatch]:
        before = 0
        for given in iterate_batches(self.given):
            batch = _labelled(given)
            first = 0 if self.half is None else (self.half - before) % 2
            step = slice(first, None, None if self.half is None else 2)
            before += len(batch.images)
            yield LabelledBatch(batch.images[step], batch.labels[step])


def _labelled(batch: Any) -> LabelledBatch:
    images, labels = inputs_of(batch), labels_of(batch)
    if labels is None:
        labels = torch.full((len(images),), UNKNOWN)
    if labels.shape != (len(images),) or labels.is_floating_point():
        raise AnalysisInputError(
            "data", f"labels of shape {tuple(labels.shape)} for {len(images)} images; give one class number for each"
        )
    return LabelledBatch(images, labels.long().cpu())


def _joined(one: LabelledBatch, other: LabelledBatch) -> LabelledBatch:
    return LabelledBatch(torch.cat([one.images, other.images]), torch.cat([one.labels, other.labels]))
