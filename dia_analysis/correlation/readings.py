"""What is known of a stage beyond r itself: its parts, with intervals, by layer and distance, and by chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from dia_analysis.correlation.nulls import Chance
from dia_analysis.results.base import Concise
from dia_analysis.statistics.intervals import Estimate
from dia_analysis.statistics.jackknife import jackknife_interval
from dia_analysis.statistics.summary import mean_along

OF_PAIRS = (
    *("mean_r", "mean_r_static", "mean_r_image", "mean_r_other_image", "pooled_r", "r_from_static", "r_from_image"),
    *("mean_r_channel", "mean_abs_r_channel", "cka", "cka_without_gain"),
)
SHARES = ("channel_share", "gain_share", "image_share", "static_share")
BY_DISTANCE = ("mean_r", "r_from_static", "r_from_image", "cka")
INCONCLUSIVE = 0.1  # of the image-dependent variance, above which rounding may explain what is found
Range = tuple[float, float]


@dataclass(frozen=True)
class Distances:
    """By the distance between two layers, from 1: how many pairs, and means over them, with 95 % intervals.

    `chance` is the middle 95 % of the mean r where channels have another order, None where they were not permuted.
    """

    pairs: tuple[int, ...]
    means: Mapping[str, tuple[Estimate, ...]]
    chance: tuple[Range, ...] | None

    def without(self, names: set[str]) -> "Distances":
        """The same with these undefined."""
        means = {n: tuple(Estimate(nan) for _ in m) if n in names else m for n, m in self.means.items()}
        return replace(self, means=means, chance=None)

    def to_list(self) -> list[dict[str, Any]]:
        """A row for each distance, as dia.correlation/2 has it."""
        return [self._row(index) for index in range(len(self.pairs))]

    def _row(self, index: int) -> dict[str, Any]:
        named = {name: values[index] for name, values in self.means.items()}
        chance = None if self.chance is None else list(self.chance[index])
        return {"distance": index + 1, "pairs": self.pairs[index], **with_intervals(named), "null": chance}


@dataclass(frozen=True)
class StageNull:
    """What the numbers are by chance, each by its name; `largest_abs_r` is the 95 % quantile of the largest mean |r|.

    mean_r with each layer's channels in another order; the image-dependent ones with its images in another order.
    `images` is how many the channels were permuted on.
    """

    chances: Mapping[str, Chance]
    largest_abs_r: float | None
    images: int

    def to_dict(self) -> dict[str, Any]:
        """As dia.correlation/2 has it."""
        named = {name: chance.to_dict() for name, chance in self.chances.items()}
        return {**named, "largest_abs_r": self.largest_abs_r, "images": self.images}


@dataclass(frozen=True)
class Similarity:
    """A likeness other than r: `mean` over images and pairs of layers, the same with the second layer's map taken
    from another image (`other_image`), and with each layer's channels in another order (`null`, None for large maps).
    """

    mean: Estimate
    other_image: Estimate
    matrix: Float[np.ndarray, "layer layer"]
    null: Chance | None

    def to_dict(self) -> dict[str, Any]:
        """As dia.correlation/2 has it."""
        return {
            **with_intervals({"mean": self.mean, "other_image": self.other_image}),
            "matrix": [plain(row) for row in self.matrix],
            "null": self.null and self.null.to_dict(),
        }


@dataclass(frozen=True)
class HeadLikeness:
    """How alike two layers' matched heads are on the images that did not match them, mean over pairs of layers.

    `other_image` is the same with the second layer's map of another image, None for large maps; `by_index` with head 1
    beside head 1 and so on; `null` with heads in random order. `matrix` (layer, layer) holds the pairs' means.
    """

    mean: Estimate
    by_index: Estimate
    other_image: float | None
    null: Chance | None
    matrix: Float[np.ndarray, "layer layer"]

    def to_dict(self) -> dict[str, Any]:
        """As dia.correlation/2 has it."""
        return {
            **with_intervals({"mean": self.mean, "by_index": self.by_index}),
            "other_image": self.other_image,
            "null": self.null and self.null.to_dict(),
            "matrix": [plain(row) for row in self.matrix],
        }


@dataclass(frozen=True, repr=False)
class MatchedHeads(Concise):
    """Heads, `count` in each layer of a stage, matched on `fit_images` and judged on `images` others, by reading."""

    count: int
    fit_images: int
    images: int
    readings: Mapping[str, HeadLikeness]

    def to_dict(self) -> dict[str, Any]:
        """As dia.correlation/2 has it."""
        found = {name: reading.to_dict() for name, reading in self.readings.items()}
        return {"heads": self.count, "fit_images": self.fit_images, "images": self.images, **found}


@dataclass(frozen=True, repr=False)
class StageReadings(Concise):
    """A stage on the `images` on which all its layers' maps are finite; NaN for what is not defined.

    `numbers` are means over pairs of layers and, of the shares of variance, over layers, each with its 95 % interval
    over images; `matrices` (layer, layer); `by_layer` the shares of variance of each layer. `mean_map` and
    `channel_std` (layer, element) are each element's mean and standard deviation (n - 1) over images, and `varies`
    which elements vary by more than rounding; `logit_std` is that of the logits of maps that a sigmoid puts out (NaN
    for elements that are 0 or 1 on some image), None of others. `constant_deviations` counts the images on which a
    layer's map differs from its mean map by no more than a constant. `rounding_share` is the share of each layer's
    image-dependent variance that rounding alone is expected to give. `similarities` are those asked for beside r and
    CKA. `cka_batches` says in how many batches CKA was taken, None for all images at once; `cka_undefined` counts the
    layers without one.
    `heads` are those of self-attention, matched, None without two heads; `by_index` says that the maps hold all heads,
    compared by their numbers, and not their mean. `without` holds the numbers without each of the groups of images.
    """

    images: int
    numbers: Mapping[str, Estimate]
    matrices: Mapping[str, Float[np.ndarray, "layer layer"]]
    by_layer: Mapping[str, Float[np.ndarray, "layer"]]
    distances: Distances
    mean_map: Float[np.ndarray, "layer element"]
    channel_std: Float[np.ndarray, "layer element"]
    logit_std: Float[np.ndarray, "layer element"] | None
    varies: Bool[np.ndarray, "layer element"]
    constant_deviations: Int64[np.ndarray, "layer"]
    rounding_share: Float[np.ndarray, "layer"]
    null: StageNull
    cka_batches: int | None
    cka_undefined: int
    sizes: Int64[np.ndarray, "group"]
    similarities: Mapping[str, Similarity] = field(default_factory=dict)
    heads: MatchedHeads | None = None
    by_index: bool = False
    without: Mapping[str, Float[np.ndarray, "group"]] = field(default_factory=dict)

    def spread(self) -> dict[str, list[float | None]]:
        """By layer, the median over elements that vary of the standard deviation over images, of the same relative to
        the element's mean, and of that of the logit.
        """
        relative = self.channel_std / np.where(self.mean_map == 0, np.nan, np.abs(self.mean_map))
        logit = np.full_like(relative, nan) if self.logit_std is None else self.logit_std
        named = {"channel_std": self.channel_std, "channel_std_over_mean": relative, "channel_std_of_logit": logit}
        return {
            name: [_median(some[varies]) for some, varies in zip(values, self.varies, strict=True)]
            for name, values in named.items()
        }

    def constant_channels(self) -> list[list[int]]:
        """By layer, the elements, from 0, that do not vary over images."""
        return [np.flatnonzero(~varies).tolist() for varies in self.varies]

    def rounded(self) -> list[int]:
        """The layers, from 1, whose dependence on the image may be rounding."""
        return [int(layer) + 1 for layer in np.flatnonzero(self.rounding_share > INCONCLUSIVE)]

    def of_unaligned(self) -> "StageReadings":
        """The same without what compares channel by channel: CKA and the shares of variance are left."""
        gone = {*OF_PAIRS, *BY_DISTANCE} - {"cka", "cka_without_gain"}
        return replace(
            self,
            numbers={name: Estimate(nan) if name in gone else found for name, found in self.numbers.items()},
            matrices={
                name: np.full_like(matrix, nan) if name in gone else matrix for name, matrix in self.matrices.items()
            },
            distances=self.distances.without(gone),
            null=replace(self.null, chances={n: c for n, c in self.null.chances.items() if n not in gone}),
            similarities={},
            without={name: values for name, values in self.without.items() if name not in gone},
        )

    def to_dict(self) -> dict[str, Any]:
        """As dia.correlation/2 has it."""
        return {
            "images_used": self.images,
            **with_intervals(self.numbers),
            **{f"{name}_by_layer": plain(values) for name, values in self.by_layer.items()},
            **self.spread(),
            "constant_channels": self.constant_channels(),
            "constant_deviations": self.constant_deviations.tolist(),
            "rounding_share": plain(self.rounding_share),
            "cka_batches": self.cka_batches,
            "cka_undefined": self.cka_undefined,
            "by_distance": self.distances.to_list(),
            "null": self.null.to_dict(),
            "similarity": {name: found.to_dict() for name, found in self.similarities.items()},
            "heads": self.heads and self.heads.to_dict(),
            "by_index": self.by_index,
            "matrices": {name: [plain(row) for row in matrix] for name, matrix in self.matrices.items()},
        }


def estimates(means: Mapping[str, Float[np.ndarray, "_"]], sizes: Int64[np.ndarray, "group"]) -> dict[str, Estimate]:
    """Numbers with their intervals, from what they are on all images and without each group."""
    return {name: estimate(values, sizes) for name, values in means.items()}


def estimate(values: Float[np.ndarray, "some"], sizes: Int64[np.ndarray, "group"]) -> Estimate:
    """A number with its interval; without one where it is not known without each group."""
    images = int(sizes.sum())
    found = None if len(values) == 1 else jackknife_interval(float(values[0]), values[1:], sizes)
    return Estimate(float(values[0]), *(found or (np.nan, np.nan)), images)


def distances(
    matrices: Mapping[str, Float[np.ndarray, "_ layer layer"]],
    sizes: Int64[np.ndarray, "group"],
    permuted: Float[np.ndarray, "draw pair"] | None,
) -> Distances:
    """Means over the pairs of layers at each distance, of the matrices on all images and without each group."""
    layers = next(iter(matrices.values())).shape[1]
    means = {
        name: tuple(estimate(_at_distance(matrices[name], each), sizes) for each in range(1, layers))
        for name in BY_DISTANCE
        if name in matrices
    }
    return Distances(tuple(range(layers - 1, 0, -1)), means, None if permuted is None else _by_chance(permuted, layers))


def _at_distance(matrices: Float[np.ndarray, "some layer layer"], distance: int) -> Float[np.ndarray, "some"]:
    return mean_along(np.diagonal(matrices, distance, axis1=1, axis2=2), 1)


def _by_chance(permuted: Float[np.ndarray, "draw pair"], layers: int) -> tuple[Range, ...]:
    rows, columns = np.triu_indices(layers, 1)
    found = []
    for distance in range(1, layers):
        low, high = np.quantile(permuted[:, columns - rows == distance].mean(1), [0.025, 0.975])
        found.append((float(low), float(high)))
    return tuple(found)


def overall(stages: Sequence[StageReadings | None], weights: Sequence[tuple[int, int]]) -> dict[str, Estimate]:
    """The numbers of all stages together: those of pairs weighted by how many there are, those of layers likewise.

    `weights` are each stage's pairs and layers.
    """
    known = [(stage, weight) for stage, weight in zip(stages, weights, strict=True) if stage is not None]
    if not known:
        return {}
    sizes = max((stage.sizes for stage, _ in known), key=lambda sizes: int(sizes.sum()))
    return {
        name: value
        for kind, names in enumerate((OF_PAIRS, SHARES))
        for name in names
        if (value := _overall(name, [(stage, weight[kind]) for stage, weight in known], sizes)) is not None
    }


def _overall(name: str, stages: list[tuple[StageReadings, int]], sizes: np.ndarray) -> Estimate | None:
    known = [(s, w) for s, w in stages if w and name in s.numbers and np.isfinite(s.numbers[name].value)]
    if not known:
        return None
    weights = np.array([weight for _, weight in known], float) / sum(weight for _, weight in known)
    value = sum(weight * stage.numbers[name].value for (stage, _), weight in zip(known, weights, strict=True))
    if not all(name in stage.without for stage, _ in known):
        return Estimate(value, images=int(sizes.sum()))
    without = sum(weight * stage.without[name] for (stage, _), weight in zip(known, weights, strict=True))
    return estimate(np.array([value, *np.asarray(without)]), sizes)


def with_intervals(numbers: Mapping[str, Estimate]) -> dict[str, Any]:
    """Each number, and its interval [low, high] or None beside it."""
    found: dict[str, Any] = {}
    for name, number in numbers.items():
        found[name] = None if np.isnan(number.value) else number.value
        found[f"{name}_interval"] = [number.low, number.high] if number.has_interval else None
    return found


def plain(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON: None for what is not defined."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None
