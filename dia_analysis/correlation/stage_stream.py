"""A stage while its maps pass by: twice, first as they are, then as deviations from their mean map."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest

import numpy as np
import torch
from torch import Tensor

from dia_analysis.correlation.groups import Groups
from dia_analysis.correlation.heads import head_sums
from dia_analysis.correlation.likeness import HEADS, directions, over_heads
from dia_analysis.correlation.logits import LogitSums
from dia_analysis.correlation.parts import Parts, find_parts
from dia_analysis.correlation.sums import DeviationSums, DirectionSums, MapSums
from dia_analysis.distributed import all_gather
from dia_analysis.probes.stages import StageMaps
from dia_analysis.statistics.pearson import VALUES_AT_ONCE, Deviations, PearsonBetweenLayers, rounding

EXAMPLES, STRIPES = 4, 64  # images whose maps are kept to be drawn: of every stage, and of those of channels
WIDEST = 2**12  # elements of a layer up to which so many are kept


class StageStream:
    """Streams one stage. The first images' maps are kept batch by batch, so that processes' can be put in order.

    `given` is the stage as the network has it, without images, `empty` as it is compared: of self-attention the mean
    over heads, which have no order, unless heads are taken `by_index`. Heads are matched beside.
    """

    def __init__(self, stage: StageMaps, similarities: Sequence[str] = (), *, by_index: bool = False):
        self.by_index = by_index
        self.given = replace(stage, maps=stage.maps[:0].cpu())
        self.empty = self.given if by_index else over_heads(self.given)
        _, layers, elements = self.empty.maps.shape
        self.statistics = PearsonBetweenLayers(layers)
        self.sums = MapSums(layers, elements)
        self.r = DirectionSums(layers, elements)
        names = dict.fromkeys([*similarities, *(["cosine"] if stage.kind in HEADS else [])])
        self.others = {name: DirectionSums(layers, elements) for name in names}
        self.heads = head_sums(self.given)
        self.kept: list[Tensor] = []

    def compared(self, maps: Tensor) -> Tensor:
        """Maps as the network gives them, as they are compared."""
        return maps if self.by_index else over_heads(replace(self.given, maps=maps)).maps

    @property
    def smallest(self) -> float:
        """The least length of a deviation that is more than rounding, in lengths of the map."""
        return rounding(self.empty.maps.dtype, self.empty.made_in)

    def keep(self, maps: Tensor) -> None:
        """Keep the first images of a batch, if there are too few."""
        wanted = STRIPES if self.empty.maps.shape[2] <= WIDEST else EXAMPLES
        missing = wanted - sum(map(len, self.kept))
        if missing > 0:
            self.kept.append(self.compared(maps[:missing].cpu()).float().clone())

    def add(self, maps: Tensor, groups: Groups) -> None:
        """The first pass: add some images."""
        for whole, numbers in self._parts(maps, groups):
            for each in self.heads.values():
                each.update(whole, numbers)
            part = self.compared(whole)
            found = Deviations.of(part, self.empty.made_in)
            self.statistics.update(found)
            self.sums.update(part, numbers)
            self.r.update(found.units, numbers)
            for name, sums in self.others.items():
                sums.update(directions(name, part, self.empty), numbers)

    def end_first(self) -> None:
        """All processes together."""
        self.totals = self.sums.totals()
        self.mean = torch.from_numpy(self.totals.mean())
        self.deviations = DeviationSums(self.mean)
        self.logits = LogitSums(self.mean) if self.empty.sigmoid else None

    def add_again(self, maps: Tensor, groups: Groups) -> None:
        """The second pass: add the same images."""
        for whole, numbers in self._parts(maps, groups):
            part = self.compared(whole)
            self.deviations.update(part, numbers, self.empty.made_in)
            if self.logits is not None:
                self.logits.update(part)

    def parts(self) -> Parts:
        """The parts of r, of all processes together."""
        self.deviation_totals = self.deviations.totals()
        return find_parts(self.totals, self.r.totals(), self.deviation_totals, self.smallest)

    def first_images(self) -> np.ndarray:
        """The maps of the first images of all processes, in order."""
        in_turn = chain.from_iterable(zip_longest(*all_gather(self.kept)))  # as processes take the batches in turn
        kept = torch.cat([maps for maps in in_turn if maps is not None])
        found: np.ndarray = kept[: STRIPES if kept.shape[2] <= WIDEST else EXAMPLES].numpy()
        return found

    def _parts(self, maps: Tensor, groups: Groups) -> list[tuple[Tensor, Groups]]:
        images = max(1, VALUES_AT_ONCE // (maps.shape[1] * maps.shape[2]))
        return list(zip(torch.split(maps, images), torch.split(groups, images), strict=True))
