"""A stage while its maps pass by: twice, first as they are, then as deviations from their mean map."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest

import numpy as np
import torch
from torch import Tensor

from dia_analysis.correlation.groups import Groups
from dia_analysis.correlation.likeness import directions, over_heads
from dia_analysis.correlation.parts import Parts, find_parts
from dia_analysis.correlation.sums import DeviationSums, DirectionSums, MapSums
from dia_analysis.distributed import all_gather
from dia_analysis.probes.stages import StageMaps
from dia_analysis.statistics.pearson import VALUES_AT_ONCE, Deviations, PearsonBetweenLayers, rounding

EXAMPLES, STRIPES = 4, 64  # images whose maps are kept to be drawn: of every stage, and of those of channels
WIDEST = 2**12  # elements of a layer up to which so many are kept


class StageStream:
    """Streams one stage. The first images' maps are kept batch by batch, so that processes' can be put in order."""

    def __init__(self, stage: StageMaps, similarities: Sequence[str] = ()):
        _, layers, elements = stage.maps.shape
        self.empty = replace(stage, maps=stage.maps.new_empty((0, layers, elements), device="cpu"))
        self.statistics = PearsonBetweenLayers(layers)
        self.sums = MapSums(layers, elements)
        self.r = DirectionSums(layers, elements)
        width = over_heads(self.empty.maps, self.empty).shape[2]
        self.others = {name: DirectionSums(layers, width) for name in similarities}
        self.kept: list[Tensor] = []

    @property
    def smallest(self) -> float:
        """The least length of a deviation that is more than rounding, in lengths of the map."""
        return rounding(self.empty.maps.dtype, self.empty.made_in)

    def keep(self, maps: Tensor) -> None:
        """Keep the first images of a batch, if there are too few."""
        wanted = STRIPES if maps.shape[2] <= WIDEST else EXAMPLES
        missing = wanted - sum(map(len, self.kept))
        if missing > 0:
            self.kept.append(maps[:missing].float().cpu().clone())

    def add(self, maps: Tensor, groups: Groups) -> None:
        """The first pass: add some images."""
        for part, numbers in self._parts(maps, groups):
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

    def add_again(self, maps: Tensor, groups: Groups) -> None:
        """The second pass: add the same images."""
        for part, numbers in self._parts(maps, groups):
            self.deviations.update(part, numbers, self.empty.made_in)

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
