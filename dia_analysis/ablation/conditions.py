"""Which maps are replaced by what, and what the network answers then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dia_analysis.ablation.fitting import Average
from dia_analysis.ablation.outcomes import Answers
from dia_analysis.ablation.replacements import REPLACEMENTS, Map
from dia_analysis.ablation.running import Layer, Maps
from dia_analysis.ablation.targets import Target
from dia_analysis.errors import AnalysisInputError

Maker = Callable[[int, Sequence[Average], Maps, Maps, int], Map]
"""Gives a layer's new maps from the layers' averages, the images' own maps, the donors', and the number of the draw."""


@dataclass
class Condition:
    """A target's maps replaced in one way, and what the network answers then, by draw.

    `by_layer` is the number of the layer of the same stage whose map is taken, None if none is.
    """

    target: Target
    replaced_by: str
    maker: Maker
    answers: list[Answers]
    by_layer: int | None = None
    change: float = 0.0
    size: float = 0.0

    @classmethod
    def of(
        cls, target: Target, replaced_by: str, maker: Maker, draws: int = 1, *, by_layer: int | None = None
    ) -> "Condition":
        """One without answers yet."""
        return cls(target, replaced_by, maker, [Answers() for _ in range(draws)], by_layer)

    @property
    def draws(self) -> int:
        """How often donors are drawn."""
        return len(self.answers)

    def new_maps(self, averages: Sequence[Average], own: Maps, donors: Maps, draw: int = 0) -> dict[int, Tensor]:
        """The maps that take the place of an image's own, by layer; those that are frozen too."""
        new = {i: self.maker(i, averages, own, donors, draw) for i in self.target.layers}
        return (dict(enumerate(own)) if self.target.effect == "direct" else {}) | new

    def note_change(self, new: dict[int, Tensor], own: Maps) -> None:
        """Add up by how much the maps of some images change."""
        for i in self.target.layers:
            change = (new[i].double() - own[i].double()).square().sum(1)
            known = change.isfinite()
            self.change += float(change[known].sum())
            self.size += float(own[i].double()[known].square().sum())

    @property
    def map_change(self) -> float | None:
        """The root mean square of the change, as a part of that of the maps."""
        return float(np.sqrt(self.change / self.size)) if self.size else None


def by_name(name: str) -> Maker:
    """What makes the maps of a replacement."""
    make = REPLACEMENTS[name].make

    def made(i: int, averages: Sequence[Average], own: Maps, donors: Maps, _: int) -> Map:
        return make(averages[i], own[i], donors[i])

    return made


def conditions_of(layers: Sequence[Layer], targets: Sequence[Target], replace_by: Sequence[str]) -> list[Condition]:
    """Each target with each replacement that there is for its kind. Raises AnalysisInputError if there is none."""
    found = []
    for target in targets:
        attends = any(layers[i].is_self_attention for i in target.layers)
        for name in dict.fromkeys(replace_by):
            replacement = REPLACEMENTS[name]
            if replacement.for_self_attention or not attends:
                found.append(Condition.of(target, name, by_name(name), replacement.draws))
    if not found:
        raise AnalysisInputError("replace_by", "self-attention replaced by 1 adds up all values; give mean or constant")
    return found
