"""Attention maps held in memory while images stream through, so that a second pass needs no second run."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest

import torch
from torch import Tensor

from dia_analysis.correlation.groups import Groups, patient_groups, random_groups
from dia_analysis.distributed import all_gather, rank, world_size
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.stages import StageMaps

Patients = Sequence[str] | Callable[[], Sequence[str]]
LIMIT = 2**30  # bytes of all maps held, of all processes together


@dataclass(frozen=True)
class Block:
    """The maps of some images in all stages, and the group of each image; a group's images follow one another."""

    stages: tuple[Tensor, ...]
    groups: Groups

    @classmethod
    def of(cls, batches: "Iterable[Block]") -> "Block":
        """Several as one."""
        blocks = list(batches)
        groups = torch.cat([block.groups for block in blocks])
        order = groups.argsort(stable=True)
        stages = zip(*(block.stages for block in blocks), strict=True)
        return cls(tuple(torch.cat(maps)[order] for maps in stages), groups[order])

    @property
    def bytes(self) -> int:
        """The size of the maps."""
        return sum(maps.numel() * maps.element_size() for maps in self.stages)


@dataclass
class HeldMaps:
    """The batches that this process has seen and that wait to be used; `patients` names whose each image is, in order.

    `batches` counts all, `images` those whose group is known.
    """

    patients: Patients | None = None
    batches: int = 0
    images: int = 0
    waiting: list[Block] = field(default_factory=list)

    def add(self, stages: Sequence[StageMaps]) -> None:
        """Hold the maps of a batch."""
        count = len(stages[0].maps)
        held = tuple(stage.maps.detach().cpu() for stage in stages)
        self.waiting.append(Block(held, self._groups(count)))
        self.batches += 1
        self.images += count

    def _groups(self, count: int) -> Groups:
        if self.patients is None:
            return random_groups(self.batches * world_size() + rank(), count)
        known = self.patients() if callable(self.patients) else self.patients
        names = known[self.images : self.images + count]
        if len(names) < count:
            raise AnalysisInputError(
                "patients", f"{len(known)} names for {self.images + count} images; give one for each image"
            )
        return patient_groups(names)

    @property
    def full(self) -> bool:
        """Whether no more can be held."""
        return sum(block.bytes for block in self.waiting) > LIMIT / world_size()

    def again(self) -> "HeldMaps":
        """For a second pass over the same images."""
        return replace(self, batches=0, images=0, waiting=[])


def everyones(waiting: Sequence[Block]) -> Block | None:
    """The maps that all processes hold, in the order in which one process alone would have taken the batches."""
    in_turn = chain.from_iterable(zip_longest(*all_gather(list(waiting))))
    blocks = [block for block in in_turn if block is not None]
    return Block.of(blocks) if blocks else None
