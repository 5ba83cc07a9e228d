"""Heads of self-attention have no order: two layers' heads are matched on some images, and judged on the others."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric

from dia_analysis.correlation.groups import GROUPS, Groups, added_up
from dia_analysis.correlation.likeness import by_head, heads_of, unit_columns
from dia_analysis.correlation.nulls import DRAWS, Chance
from dia_analysis.correlation.readings import HeadLikeness, MatchedHeads, estimate
from dia_analysis.correlation.sums import LARGEST
from dia_analysis.probes.stages import StageMaps
from dia_analysis.statistics.pearson import Deviations
from dia_analysis.statistics.summary import mean, mean_along

HALVES = 2  # groups of even number match the heads, those of odd number judge them
READINGS = ("r", "cosine")
Sums = Float[np.ndarray, "group layer head other_layer other_head"]


class HeadSums(Metric):
    """Streams, for one reading, the likeness of every head of a layer with every head of every other layer.

    `products` and `with_product` are sums over images by group, or by half of the groups where they are large; `units`
    those of the heads' directions by half, with none for large maps.
    """

    full_state_update = False
    products: Float[Tensor, "group head head"]
    with_product: Int64[Tensor, "group head head"]
    units: Float[Tensor, "half head _"]
    images: Int64[Tensor, "group"]

    def __init__(self, reading: str, stage: StageMaps):
        super().__init__()
        self.reading, self.stage = reading, stage
        self.layers, self.heads = len(stage.layers), heads_of(stage)
        size = self.layers * self.heads
        self.kept = GROUPS if 8 * GROUPS * size**2 <= LARGEST else HALVES
        elements = stage.maps.shape[2] // self.heads
        self.halves = HALVES if 8 * HALVES * size * elements <= LARGEST else 0
        self.add_state("products", torch.zeros(self.kept, size, size, dtype=torch.float64), "sum")
        self.add_state("with_product", torch.zeros(self.kept, size, size, dtype=torch.int64), "sum")
        self.add_state("units", torch.zeros(self.halves, size, elements, dtype=torch.float64), "sum")
        self.add_state("images", torch.zeros(GROUPS, dtype=torch.int64), "sum")

    def update(self, maps: Float[Tensor, "image layer element"], groups: Groups) -> None:
        """Add some images."""
        shape, heads = self.stage.shape or (), by_head(maps, self.stage)
        cosine = self.reading == "cosine"
        units = unit_columns(heads, shape) if cosine else Deviations.of(heads, self.stage.made_in).units
        there, known = ~units[:, :, 0].isnan(), units.nan_to_num(0.0)
        likeness = known.float() @ known.float().mT  # float32, as there are many pairs: errors of 1e-7
        self.products += added_up(likeness.clamp(-1, 1).double(), groups % self.kept, self.kept)
        self.with_product += added_up((there[:, :, None] & there[:, None, :]).long(), groups % self.kept, self.kept)
        self.images += torch.bincount(groups, minlength=GROUPS)
        if self.halves:
            self.units += added_up(known, groups % self.halves, self.halves)

    def compute(self) -> dict[str, np.ndarray]:
        """The sums of all processes together."""
        names = ("products", "with_product", "units", "images")
        return {name: getattr(self, name).numpy().copy() for name in names}


def head_sums(stage: StageMaps) -> dict[str, HeadSums]:
    """By reading, what is to stream over a stage; nothing without two heads in each of two layers."""
    several = len(stage.layers) > 1 and heads_of(stage) > 1
    return {name: HeadSums(name, stage) for name in READINGS} if several else {}


def match_heads(sums: Mapping[str, HeadSums], seed: int) -> MatchedHeads | None:
    """Match the heads of every two layers on the images of every other group, and judge them on the rest.

    Each reading matches its own: the pairing whose sum of likenesses is largest (Kuhn 1955). None where either half of
    the images is empty.
    """
    found = {name: each.compute() for name, each in sums.items()}
    first = next(iter(sums.values()))
    images = next(iter(found.values()))["images"]
    fit, judged = (int(images[half::HALVES].sum()) for half in range(HALVES))
    if not fit or not judged:
        return None
    shape, sizes = (first.layers, first.heads), images[1::HALVES]
    readings = {name: _judge(each, shape, sizes, seed) for name, each in found.items()}
    return MatchedHeads(first.heads, fit, judged, readings)


def _judge(
    sums: Mapping[str, np.ndarray], shape: tuple[int, int], sizes: Int64[np.ndarray, "group"], seed: int
) -> HeadLikeness:
    layers, heads = shape
    products, counts = (sums[name].reshape(-1, *shape, *shape) for name in ("products", "with_product"))
    matches = _matches(_mean(products[::HALVES].sum(0), counts[::HALVES].sum(0)))
    by_index = {pair: np.arange(heads) for pair in matches}
    judged = _left_out(products[1::HALVES]), _left_out(counts[1::HALVES])
    values = _of_pairs(*judged, matches)
    own = _of_pairs(*judged, by_index)
    matrix = np.full((layers, layers), np.nan)
    for (a, b), value in zip(matches, values[0], strict=True):
        matrix[a, b] = matrix[b, a] = value
    np.fill_diagonal(matrix, 1.0)
    return HeadLikeness(
        estimate(mean_along(values, 1), sizes),
        estimate(mean_along(own, 1), sizes),
        _other_image(sums["units"], products[1::HALVES].sum(0), counts[1::HALVES].sum(0), matches),
        _by_chance(_mean(judged[0][0], judged[1][0]), list(matches), seed),
        matrix,
    )


def _matches(likeness: Float[np.ndarray, "layer head other other_head"]) -> dict[tuple[int, int], np.ndarray]:
    """For every two layers, which head of the second is beside each head of the first."""
    from scipy.optimize import linear_sum_assignment  # takes long to import

    pairs = zip(*np.triu_indices(len(likeness), 1), strict=True)
    known = np.nan_to_num(likeness)
    return {(int(a), int(b)): linear_sum_assignment(known[a, :, b], maximize=True)[1] for a, b in pairs}


def _of_pairs(sums: Sums, counts: np.ndarray, matches: Mapping[tuple[int, int], np.ndarray]) -> np.ndarray:
    """By group left out and pair of layers, the mean over images and matched heads."""
    heads = np.arange(sums.shape[2])
    found = [[part[:, a, heads, b, order].sum(1) for part in (sums, counts)] for (a, b), order in matches.items()]
    return np.stack([_mean(*each) for each in found], axis=1)


def _other_image(
    units: np.ndarray, products: np.ndarray, counts: np.ndarray, matches: Mapping[tuple[int, int], np.ndarray]
) -> float | None:
    """The mean likeness of matched heads over all ordered pairs of different judging images."""
    if not len(units):
        return None
    layers, heads = products.shape[:2]
    sums, own = units[1].reshape(layers, heads, -1), np.einsum("ahah->ah", counts)
    found = []
    for (a, b), order in matches.items():
        there, first = products[a, np.arange(heads), b, order], np.arange(heads)
        likeness = np.einsum("he,he->h", sums[a], sums[b][order]) - there
        pairs = own[a] * own[b][order] - counts[a, first, b, order]
        found.append((likeness.sum(), pairs.sum()))
    return mean(_mean(*np.array(found).T))


def _by_chance(likeness: np.ndarray, pairs: list[tuple[int, int]], seed: int) -> Chance | None:
    """With the heads of each layer in random order; one number for all orders where there is one head."""
    layers, heads = likeness.shape[:2]
    rows, columns = np.array(pairs).T
    orders = np.random.default_rng(seed).permuted(np.tile(np.arange(heads), (DRAWS, layers, 1)), axis=2)
    drawn = likeness[rows[None, :, None], orders[:, rows], columns[None, :, None], orders[:, columns]]
    draws = mean_along(mean_along(drawn, 2), 1)
    return Chance.of(draws) if np.isfinite(draws).all() else None


def _left_out(sums: np.ndarray) -> np.ndarray:
    """Sums over all groups, then over all but each; of those that are by half alone the first alone."""
    whole: np.ndarray = sums.sum(0, keepdims=True)
    return whole if len(sums) == 1 else np.concatenate([whole, whole - sums])


def _mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.divide(sums, counts)
    return found
