"""Hold images out for validation: at random, or whole groups of images, such as all of one patient."""

from collections import defaultdict
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor

Taken = TypeVar("Taken")


@runtime_checkable
class Divisible(Protocol):
    """Labelled images of which one can take some. Those of one of the `groups`, such as a patient, belong together."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Int64[Tensor, "image"]: ...  # noqa: D102

    @property
    def groups(self) -> tuple[str, ...] | None: ...  # noqa: D102

    def take(self: Taken, indices: Int64[Tensor, "chosen"]) -> Taken: ...  # noqa: D102


Images = TypeVar("Images", bound=Divisible)


def hold_out(images: Images, fraction: float, seed: int) -> tuple[Images, Images | None]:
    """Split into images to train on and, unless `fraction` rounds to none, images to validate on.

    Images of one group (`images.groups`) stay together; then each class gives up about its share of images.
    The same seed gives the same split.
    """
    generator = torch.Generator().manual_seed(seed)
    if images.groups is None:
        order = torch.randperm(len(images), generator=generator)
        held = order[: round(len(images) * fraction)]
        kept = order[len(held) :].sort().values
    else:
        held = _whole_groups(images.groups, images.labels, fraction, generator)
        inside = torch.zeros(len(images), dtype=torch.bool)
        inside[held] = True
        kept = (~inside).nonzero().flatten()
    return images.take(kept), images.take(held) if len(held) else None


def _whole_groups(
    groups: tuple[str, ...], labels: Int64[Tensor, "image"], fraction: float, generator: torch.Generator
) -> Int64[Tensor, "held"]:
    """Indices of images of groups drawn at random, class by class, until the class has given up its share."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    by_class: defaultdict[int, list[str]] = defaultdict(list)
    for group in sorted(members):
        by_class[int(labels[members[group][0]])].append(group)  # a group of two classes counts for its first image's
    held: list[int] = []
    for names in by_class.values():
        goal = fraction * sum(len(members[name]) for name in names)
        taken = 0
        for position in torch.randperm(len(names), generator=generator).tolist():
            if taken + len(members[names[position]]) / 2 > goal:
                break
            held += members[names[position]]
            taken += len(members[names[position]])
    return torch.tensor(sorted(held), dtype=torch.int64)
