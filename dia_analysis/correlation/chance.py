"""A stage's numbers by chance: from its maps to the draws of `nulls` and what they say."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dia_analysis.correlation.likeness import directions
from dia_analysis.correlation.nulls import LARGEST, Chance, permuted_channels, permuted_images
from dia_analysis.correlation.parts import Parts, over_images_and_pairs, over_pairs, same_and_other_image
from dia_analysis.correlation.readings import Similarity, StageNull, estimate
from dia_analysis.correlation.stage_stream import StageStream
from dia_analysis.correlation.sums import DirectionTotals, LayerDeviations
from dia_analysis.statistics.cka import permuted_std
from dia_analysis.statistics.pearson import Deviations

NORMAL, HIGHEST = 1.96, 2.84
"""Standard deviations below and above 0 that hold 95 % of a CKA by chance: of maps of many directions, where it is
normal, and of a single one, where it is as a squared normal number less 1.
"""
Maps = Float[Tensor, "image layer element"]
Draws = Float[np.ndarray, "draw pair"]


def stage_null(maps: Maps, stream: StageStream, parts: Parts, seed: int) -> tuple[StageNull, Draws | None]:
    """What a stage's numbers are by chance, and the draws of each pair's mean r; channels of large maps stay."""
    used = maps[maps.isfinite().all(2).all(1)]
    _, layers, elements = used.shape
    chances: dict[str, Chance] = {}
    pairs = layers * (layers - 1) // 2
    permuted = None
    if pairs and len(used) and layers * elements <= LARGEST:
        units = Deviations.of(used, stream.empty.made_in).units.nan_to_num(0.0).float()
        permuted = permuted_channels(units, seed)
        chances["mean_r"] = Chance.of(permuted.mean(1))
        if len(used) > 1:
            chances |= _by_images(used, stream, parts, seed)
    if pairs and (cka := cka_by_chance(parts.images, pairs)) is not None:
        chances["cka"] = cka
    largest = None if permuted is None else float(np.quantile(np.abs(permuted).max(1), 0.95))
    return StageNull(chances, largest, len(used)), permuted


def cka_by_chance(images: int, pairs: int) -> Chance | None:
    """What the mean CKA of so many pairs of layers is where the images of one are in another order; exact moments."""
    std = permuted_std(images) / np.sqrt(pairs)
    return None if np.isnan(std) else Chance(0.0, float(std), float(-NORMAL * std), float(HIGHEST * std), None)


def similarities(
    maps: Maps, stream: StageStream, sizes: Int64[np.ndarray, "group"], seed: int
) -> dict[str, Similarity]:
    """The likenesses asked for beside r, each with what it is by chance."""
    return {name: _similarity(name, sums.totals(), maps, stream, sizes, seed) for name, sums in stream.others.items()}


def _similarity(
    name: str, sums: DirectionTotals, maps: Maps, stream: StageStream, sizes: np.ndarray, seed: int
) -> Similarity:
    same, other = same_and_other_image(sums)
    mean = estimate(over_images_and_pairs(sums.products, sums.with_product), sizes)
    return Similarity(mean, estimate(over_pairs(other), sizes), same[0], _null(name, mean.value, maps, stream, seed))


def _null(name: str, value: float, maps: Maps, stream: StageStream, seed: int) -> Chance | None:
    """With each layer's channels in another order, which sorting undoes."""
    _, layers, elements = maps.shape
    if layers < 2 or layers * elements > LARGEST or np.isnan(value):
        return None
    if name == "sorted":
        return Chance(value, 0.0, value, value, None)
    units = directions(name, maps, stream.empty).nan_to_num(0.0).float()
    return Chance.of(permuted_channels(units, seed).mean(1))


def _by_images(used: Tensor, stream: StageStream, parts: Parts, seed: int) -> dict[str, Chance]:
    found = LayerDeviations.of(used.double(), stream.mean, stream.smallest)
    by_element = found.values - found.values.mean(0)
    lengths = by_element.norm(dim=0)
    varies = torch.from_numpy(parts.varies) & (lengths > 0)
    over_images = torch.where(varies, by_element / lengths, 0).float().permute(2, 1, 0).contiguous()
    draws = permuted_images(found.units().nan_to_num(0.0).float(), over_images, seed)
    return {name: Chance.of(values) for name, values in draws.items()}
