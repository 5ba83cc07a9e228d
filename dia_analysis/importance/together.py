"""Layers of different widths as one stage: whole vectors need no channels that correspond."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from dia_analysis.importance.scores import FIRST_FAR
from dia_analysis.probes.stages import StageMaps

UNLIKE = "its layers have different widths"


@dataclass(frozen=True)
class Gathered:
    """Some stages taken as one, by their places; more than one where their layers have different widths."""

    places: tuple[int, ...]

    @property
    def unlike(self) -> bool:
        """Whether the layers have different widths."""
        return len(self.places) > 1

    def of(self, stages: Sequence[StageMaps]) -> StageMaps:
        """The stage. Narrow maps are filled up with zeros, which do not vary and so tell forests nothing."""
        some = [stages[place] for place in self.places]
        if not self.unlike:
            return some[0]
        width = max(stage.maps.shape[2] for stage in some)
        maps = torch.cat([pad(stage.maps, (0, width - stage.maps.shape[2])) for stage in some], 1)
        return StageMaps(some[0].kind, tuple(layer for stage in some for layer in stage.layers), maps)


def gather(stages: Sequence[StageMaps]) -> list[Gathered]:
    """The stages as they are; of a kind whose four layers or more have mostly a stage of their own, all as one."""
    by_kind: dict[str, list[int]] = {}
    for place, stage in enumerate(stages):
        by_kind.setdefault(stage.kind, []).append(place)
    found = []
    for places in by_kind.values():
        layers = sum(len(stages[place].layers) for place in places)
        together = layers >= FIRST_FAR and len(places) > layers / 2
        found += [Gathered(tuple(places))] if together else [Gathered((place,)) for place in places]
    return sorted(found, key=lambda one: one.places)
