"""Which of 50 groups an image belongs to, for the jackknife: the same however many processes share the images."""

from collections.abc import Sequence
from zlib import crc32

import torch
from jaxtyping import Int64
from torch import Tensor

GROUPS = 50
Groups = Int64[Tensor, "image"]


def random_groups(batch: int, images: int) -> Groups:
    """At random for the images of a batch, by its number among those of all processes."""
    return torch.randint(GROUPS, (images,), generator=torch.Generator().manual_seed(batch))


def patient_groups(patients: Sequence[str]) -> Groups:
    """Those of patients, who stay whole, by their names."""
    return torch.tensor([crc32(name.encode()) % GROUPS for name in patients], dtype=torch.int64)


def added_up(values: Tensor, groups: Groups, count: int) -> Tensor:
    """Sums over the images of each group (group, ...) of values (image, ...); with a `count` of 1, over all."""
    if count == 1:
        return values.sum(0, keepdim=True)
    return values.new_zeros((count, *values.shape[1:])).index_add_(0, groups, values)
