"""Another layer's map of the same image in a map's place: every ordered pair of aligned layers, above its floors."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dia_analysis.ablation.conditions import Condition, Maker, by_name
from dia_analysis.ablation.fitting import Average
from dia_analysis.ablation.replacements import DRAWS, Map
from dia_analysis.ablation.running import Layer, Maps
from dia_analysis.ablation.targets import Target
from dia_analysis.statistics.intervals import Estimate, Patients, student
from dia_analysis.statistics.paired import mean_difference, standard_error

RAW, MATCHED, OTHER_IMAGE, PERMUTED = "layer", "layer-matched", "layer-matched-other-image", "own-permuted"
MOST_PASSES = 50
"""Up to so many passes of all images the layer swap runs without being asked for."""


def swap_conditions(layers: Sequence[Layer], aligned: Bool[Tensor, "layer layer"], seed: int) -> list[Condition]:
    """For each layer that is aligned with others of its stage its floors, then each other layer's map in three ways.

    The floors are its own map with channels permuted (one order for all images, five draws), one constant, its mean.
    """
    found = []
    for i, layer in enumerate(layers):
        partners = [j for j in range(len(layers)) if j != i and aligned[i, j] and layers[j].stage == layer.stage]
        if not partners:
            continue
        target = Target(layer.stage, (i,))
        found += [Condition.of(target, PERMUTED, _permuted(layer, seed), DRAWS)]
        found += [Condition.of(target, name, by_name(name)) for name in ("constant", "mean")]
        for j in partners:
            makers = ((RAW, _raw(j)), (MATCHED, _matched(j)), (OTHER_IMAGE, _matched(j, other_image=True)))
            found += [Condition.of(target, name, maker, by_layer=layers[j].number) for name, maker in makers]
    return found


def passes_of(conditions: Sequence[Condition]) -> int:
    """How often all images go through the network."""
    return sum(condition.draws for condition in conditions)


def _permuted(layer: Layer, seed: int) -> Maker:
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(torch.Size(layer.shape).numel(), generator=generator) for _ in range(DRAWS)]

    def make(i: int, _: Sequence[Average], own: Maps, __: Maps, draw: int) -> Map:
        return own[i][:, orders[draw]]

    return make


def _raw(j: int) -> Maker:
    def make(_: int, __: Sequence[Average], own: Maps, ___: Maps, ____: int) -> Map:
        return own[j]

    return make


def _matched(j: int, *, other_image: bool = False) -> Maker:
    def make(i: int, averages: Sequence[Average], own: Maps, donors: Maps, _: int) -> Map:
        theirs, ours = averages[j], averages[i]
        scale = ours.spread / theirs.spread if theirs.spread else 0.0
        return ((donors if other_image else own)[j] - theirs.level) * scale + ours.level

    return make


def swap_score(
    permuted: Float[np.ndarray, "image"],
    matched: Float[np.ndarray, "image"],
    untouched: Float[np.ndarray, "image"],
    patients: Patients | None = None,
) -> Estimate:
    """How far another layer's map closes the gap from the own map with channels permuted (0) to the own map (1).

    From losses by image: (permuted - matched) / (permuted - untouched), of means, with an interval by linearization.
    NaN where the interval of the denominator holds 0, so that there is no gap to close.
    """
    gained, gap = permuted - matched, permuted - untouched
    whole = mean_difference(gap, patients)
    images = len(gap)
    if not whole.has_interval or whole.low <= 0 <= whole.high or not np.isfinite(gained).all():
        return Estimate(np.nan, images=images)
    value = float(gained.mean() / gap.mean())
    error, number = standard_error(gained - value * gap, patients)
    reach = student(number - 1) * error / abs(whole.value)
    return Estimate(value, value - reach, value + reach, images)
