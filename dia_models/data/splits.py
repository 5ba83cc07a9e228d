"""Hold images out for validation, at random or by whole groups such as patients; train on fewer images."""

from collections import defaultdict
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor

from dia_models.errors import ModelInputError

Taken = TypeVar("Taken")


@runtime_checkable
class Splittable(Protocol):
    """Labeled images of which one can take some. Those of one of the `groups`, such as a patient, belong together."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Int64[Tensor, "image"]: ...  # noqa: D102

    @property
    def groups(self) -> tuple[str, ...] | None: ...  # noqa: D102

    def take(self: Taken, indices: Int64[Tensor, "chosen"]) -> Taken: ...  # noqa: D102


AnyImages = TypeVar("AnyImages", bound=Splittable)


def hold_out(images: AnyImages, fraction: float, seed: int) -> tuple[AnyImages, AnyImages | None]:
    """Split images into those to train on and those to validate on.

    Args:
        images: The images. Those of one group (`images.groups`), such as a patient, stay together; then each class
            gives up about its share.
        fraction: Which part of them to hold out, from 0 to 1.
        seed: The same seed gives the same split.

    Returns:
        The images to train on, and those held out, None if `fraction` rounds to none.
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


def balanced_subset(images: AnyImages, count: int, seed: int) -> AnyImages:
    """`count` images drawn at random, as many of each class as of every other where there are enough.

    The same seed draws the same images, and more of them with a larger `count`. Raises ModelInputError if there are
    fewer.
    """
    if count > len(images):
        raise ModelInputError("set", f"training_images={count}: there are {len(images)} images to train on")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    turns = _turns(images.labels[order])
    chosen = order[turns.argsort(stable=True)[:count]]
    return images.take(chosen.sort().values)


def _turns(labels: Int64[Tensor, "image"]) -> Int64[Tensor, "image"]:
    """How many images of the same class come before each."""
    turns = torch.zeros_like(labels)
    for label in sorted(set(labels.tolist())):
        of_class = labels == label
        turns[of_class] = torch.arange(int(of_class.sum()))
    return turns
