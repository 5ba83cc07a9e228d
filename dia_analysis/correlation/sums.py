"""Sums over images from which the parts of r are made: of the maps, then of their deviations from the mean map.

All are by group of images, so that the jackknife can leave one out, in float64, and add up over processes.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchmetrics import Metric

from dia_analysis.correlation.groups import GROUPS, Groups, added_up
from dia_analysis.statistics.pearson import rounding

LARGEST = 2**28  # bytes of sums by element and group; of larger maps they are over all images, without intervals
Maps = Float[Tensor, "image layer element"]


def groups_kept(*sizes: int) -> int:
    """By how many groups sums of these sizes are kept: 50, or 1 where that takes too much memory."""
    return GROUPS if GROUPS * torch.Size(sizes).numel() * 8 <= LARGEST else 1


@dataclass(frozen=True)
class MapTotals:
    """What the first pass adds up: `used` counts the images on which the maps of all layers are finite; only these are
    in `maps`.
    """

    used: Int64[np.ndarray, "group"]
    maps: Float[np.ndarray, "kept layer element"]

    def mean(self) -> Float[np.ndarray, "layer element"]:
        """The mean map of each layer; zeros where no image is used."""
        mean: np.ndarray = self.maps.sum(0) / max(self.used.sum(), 1)
        return mean


@dataclass(frozen=True)
class DirectionTotals:
    """Of a likeness image by image, such as r: the sums of maps' directions of length 1 (`units`), of `products` of two
    layers' directions, how many maps have a direction (`with_unit`) and how many pairs (`with_product`).
    """

    units: Float[np.ndarray, "kept layer _"]
    with_unit: Int64[np.ndarray, "group layer"]
    products: Float[np.ndarray, "group layer layer"]
    with_product: Int64[np.ndarray, "group layer layer"]


@dataclass(frozen=True)
class DeviationTotals:
    """What the second pass adds up, of the deviations from the mean maps, on the images that the first one used.

    `maps` are the deviations themselves, `squares` the maps' own; `gains` the squares of the deviations' means over
    elements; `products` those of two layers' deviations, each less its mean over elements, summed over elements; `r`
    their Pearson r and `with_r` where it is defined; `constant` counts the images on which a layer's deviation is
    constant; `by_element` holds products of two layers over images, with no group at all for maps too large for it.
    """

    maps: Float[np.ndarray, "kept layer element"]
    squares: Float[np.ndarray, "layer element"]
    gains: Float[np.ndarray, "group layer"]
    products: Float[np.ndarray, "group layer layer"]
    r: Float[np.ndarray, "group layer layer"]
    with_r: Int64[np.ndarray, "group layer layer"]
    constant: Int64[np.ndarray, "layer"]
    by_element: Float[np.ndarray, "some element layer layer"]


class MapSums(Metric):
    """Streams `MapTotals` over images."""

    full_state_update = False
    used: Int64[Tensor, "group"]
    maps: Float[Tensor, "kept layer element"]

    def __init__(self, layers: int, elements: int):
        super().__init__()
        self.kept = groups_kept(layers, elements)
        self.add_state("used", torch.zeros(GROUPS, dtype=torch.int64), "sum")
        self.add_state("maps", torch.zeros(self.kept, layers, elements, dtype=torch.float64), "sum")

    def update(self, maps: Maps, groups: Groups) -> None:
        """Add some images."""
        used = maps.isfinite().all(2).all(1)
        self.used += added_up(used.long(), groups, GROUPS)
        self.maps += added_up(torch.where(used[:, None, None], maps.double(), 0), groups, self.kept)

    def compute(self) -> dict[str, np.ndarray]:
        """The sums of all processes together, by the names of `MapTotals`."""
        return {each.name: getattr(self, each.name).numpy().copy() for each in fields(MapTotals)}

    def totals(self) -> MapTotals:
        """The same as such."""
        return MapTotals(**self.compute())


class DirectionSums(Metric):
    """Streams `DirectionTotals` over images."""

    full_state_update = False
    units: Float[Tensor, "kept layer _"]
    with_unit: Int64[Tensor, "group layer"]
    products: Float[Tensor, "group layer layer"]
    with_product: Int64[Tensor, "group layer layer"]

    def __init__(self, layers: int, elements: int):
        super().__init__()
        self.kept = groups_kept(layers, elements)
        self.add_state("units", torch.zeros(self.kept, layers, elements, dtype=torch.float64), "sum")
        self.add_state("with_unit", torch.zeros(GROUPS, layers, dtype=torch.int64), "sum")
        self.add_state("products", torch.zeros(GROUPS, layers, layers, dtype=torch.float64), "sum")
        self.add_state("with_product", torch.zeros(GROUPS, layers, layers, dtype=torch.int64), "sum")

    def update(self, units: Float[Tensor, "image layer _"], groups: Groups) -> None:
        """Add some images' directions, NaN for those that are not defined."""
        there = ~units[:, :, 0].isnan()
        known = units.nan_to_num(0.0)
        self.units += added_up(known, groups, self.kept)
        self.with_unit += added_up(there.long(), groups, GROUPS)
        self.products += added_up((known @ known.mT).clamp(-1, 1), groups, GROUPS)
        self.with_product += added_up((there[:, :, None] & there[:, None, :]).long(), groups, GROUPS)

    def compute(self) -> dict[str, np.ndarray]:
        """The sums of all processes together, by the names of `DirectionTotals`."""
        return {each.name: getattr(self, each.name).numpy().copy() for each in fields(DirectionTotals)}

    def totals(self) -> DirectionTotals:
        """The same as such."""
        return DirectionTotals(**self.compute())


class DeviationSums(Metric):
    """Streams `DeviationTotals` over images, given the mean maps."""

    full_state_update = False
    maps: Float[Tensor, "group layer element"]
    squares: Float[Tensor, "layer element"]
    gains: Float[Tensor, "group layer"]
    products: Float[Tensor, "group layer layer"]
    r: Float[Tensor, "group layer layer"]
    with_r: Int64[Tensor, "group layer layer"]
    constant: Int64[Tensor, "layer"]
    by_element: Float[Tensor, "group element layer layer"]

    def __init__(self, mean: Float[Tensor, "layer element"]):
        super().__init__()
        layers, elements = mean.shape
        self.mean = mean
        self.kept = groups_kept(layers, elements)
        fits = 8 * layers * layers * elements <= LARGEST
        self.kept_by_element = groups_kept(elements, layers, layers) if fits else 0
        sizes = {
            "maps": (self.kept, layers, elements),
            "squares": (layers, elements),
            "gains": (GROUPS, layers),
            "products": (GROUPS, layers, layers),
            "r": (GROUPS, layers, layers),
            "by_element": (self.kept_by_element, elements, layers, layers),
        }
        for name, size in sizes.items():
            self.add_state(name, torch.zeros(size, dtype=torch.float64), "sum")
        self.add_state("with_r", torch.zeros(GROUPS, layers, layers, dtype=torch.int64), "sum")
        self.add_state("constant", torch.zeros(layers, dtype=torch.int64), "sum")

    def update(self, maps: Maps, groups: Groups, made_in: torch.dtype | None = None) -> None:
        """Add some images, those of a group one after the other; maps that are not finite are left out."""
        values = maps.double()
        used = values.isfinite().all(2).all(1)
        found = LayerDeviations.of(values[used], self.mean, rounding(maps.dtype, made_in))
        self._add(found, groups[used])
        self.squares += values[used].square().sum(0)

    def _add(self, found: "LayerDeviations", groups: Groups) -> None:
        self.maps += added_up(found.values, groups, self.kept)
        self.gains += added_up(found.gains.square(), groups, GROUPS)
        self.products += added_up(found.products, groups, GROUPS)
        self.r += added_up(found.pearson().nan_to_num(0.0), groups, GROUPS)
        self.with_r += added_up((found.vary[:, :, None] & found.vary[:, None, :]).long(), groups, GROUPS)
        self.constant += (~found.vary).sum(0)
        if self.kept_by_element:
            self._add_by_element(found.values.permute(2, 1, 0).contiguous(), groups)

    def _add_by_element(self, values: Float[Tensor, "element layer image"], groups: Groups) -> None:
        if self.kept_by_element == 1:
            self.by_element += values @ values.mT
            return
        sizes = torch.bincount(groups, minlength=GROUPS).tolist()
        for group, part in enumerate(torch.split(values, sizes, dim=2)):
            self.by_element[group] += part @ part.mT

    def compute(self) -> dict[str, np.ndarray]:
        """The sums of all processes together, by the names of `DeviationTotals`."""
        return {each.name: getattr(self, each.name).numpy().copy() for each in fields(DeviationTotals)}

    def totals(self) -> DeviationTotals:
        """The same as such."""
        return DeviationTotals(**self.compute())


@dataclass(frozen=True)
class LayerDeviations:
    """Deviations of maps from the mean map: `values`, their means over elements (`gains`), `centered` without these,
    the `products` of two layers' centered ones, and which `vary` by more than the rounding of the map.
    """

    values: Maps
    gains: Float[Tensor, "image layer"]
    centered: Maps
    products: Float[Tensor, "image layer layer"]
    vary: Bool[Tensor, "image layer"]

    @classmethod
    def of(
        cls, maps: Float[Tensor, "image layer element"], mean: Float[Tensor, "layer element"], smallest: float
    ) -> "LayerDeviations":
        """Of finite maps in float64; `smallest` is a deviation's least length, in lengths of the map."""
        values = maps - mean
        gains = values.mean(2)
        centered = values - gains[:, :, None]
        products = centered @ centered.mT
        lengths = products.diagonal(dim1=1, dim2=2).sqrt()
        return cls(values, gains, centered, products, lengths > smallest * maps.norm(dim=2))

    def lengths(self) -> Float[Tensor, "image layer"]:
        """The lengths of the centered deviations, NaN for those that do not vary."""
        return torch.where(self.vary, self.products.diagonal(dim1=1, dim2=2).sqrt(), torch.nan)

    def pearson(self) -> Float[Tensor, "image layer layer"]:
        """Pearson's r between every two layers' deviations, over elements; NaN where one does not vary."""
        lengths = self.lengths()
        return (self.products / (lengths[:, :, None] * lengths[:, None, :])).clamp(-1, 1)

    def units(self) -> Maps:
        """The centered deviations with length 1; NaN for those that do not vary."""
        return self.centered / self.lengths()[:, :, None]
