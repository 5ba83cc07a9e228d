"""From the maps of a stage to the rows that forests see: each channel without its mean, as it is, or whole vectors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

Rows = Literal["centred", "raw", "vector"]
ROWS_ARE: Mapping[Rows, str] = {
    "centred": "(image, channel) pairs, each channel without its mean and divided by its standard deviation",
    "raw": "(image, channel) pairs as captured",
    "vector": "images, whole vectors",
}
COMPONENTS = 8  # principal components that a vector is described by, at most
SMALLEST = float(np.finfo(np.float64).eps)  # variance that forests split
ROUNDING = 8 * float(np.finfo(np.float32).eps)  # deviations shorter than this part of the values are rounding


@dataclass(frozen=True)
class Target:
    """What forests predict: values by row, NaN for a row that is left out; `share` is what they count for."""

    share: float
    values: Float64[np.ndarray, "row"]

    @property
    def variance(self) -> float:
        """Of all values that there are."""
        return float(np.nanvar(self.values))


@dataclass(frozen=True)
class Table:
    """Rows for forests, image after image, each with the same elements in the same order: `images` times.

    There are `width` columns for each layer, and each layer as a target. `explained` is the share of the layers'
    variance that the columns hold, where they do not hold all.
    """

    columns: Float32[np.ndarray, "column row"]
    width: int
    images: int
    targets: tuple[tuple[Target, ...], ...]
    explained: float | None = None

    @property
    def image(self) -> Int64[np.ndarray, "row"]:
        """The image that each row is of."""
        return np.repeat(np.arange(self.images), self.columns.shape[1] // self.images)

    def of_other_images(self, random: np.random.Generator) -> Int64[np.ndarray, "row"]:
        """For each row, that of the same element in another image; all rows of an image go to the same one."""
        order = random.permutation(self.images)
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        elements = self.columns.shape[1] // self.images
        rows: np.ndarray = (other[:, None] * elements + np.arange(elements)).reshape(-1)
        return rows


def raw(maps: Float32[np.ndarray, "image layer element"]) -> Table:
    """A row for every (image, element) pair, a column for every layer."""
    columns = maps.transpose(1, 0, 2).reshape(maps.shape[1], -1)
    return Table(columns, 1, len(maps), tuple((Target(1.0, column.astype(np.float64)),) for column in columns))


def centred(maps: Float32[np.ndarray, "image layer element"]) -> Table:
    """The same, each element's mean over the images subtracted, divided by its standard deviation over them.

    An element that is the same for all images has no deviation: it is 0 as a source, and left out as a target.
    """
    deviation, varies = deviations(maps)
    scale = np.sqrt(np.square(deviation).mean(0))
    scaled = (deviation / np.where(varies, scale, 1)).astype(np.float32)
    columns = scaled.transpose(1, 0, 2).reshape(maps.shape[1], -1)
    known = np.where(np.tile(varies, len(maps)), columns.astype(np.float64), np.nan)
    targets = tuple((Target(1.0, values),) if some.any() else () for values, some in zip(known, varies, strict=True))
    return Table(columns, 1, len(maps), targets)


def vectors(maps: Float32[np.ndarray, "image layer element"]) -> Table:
    """A row for every image; a layer's vector is described by its first 8 principal components, a column for each.

    As a target, each component counts for its share in the variance. Each layer's vectors are scaled to the same size.
    """
    from threadpoolctl import threadpool_limits

    deviation, _ = deviations(maps)
    size = np.sqrt(np.square(deviation).mean((0, 2), keepdims=True))
    scaled = deviation / np.where(size > 0, size, 1)
    with threadpool_limits(1, "blas"):  # threads wait for each other longer than they take for such small matrices
        scores = np.stack([_components(scaled[:, layer]) for layer in range(maps.shape[1])])
    held, there = (np.square(values).sum((1, 2)) for values in (scores, scaled.transpose(1, 0, 2)))
    explained = float((held[there > 0] / there[there > 0]).mean()) if there.any() else None
    columns = scores.transpose(0, 2, 1).reshape(-1, len(maps)).astype(np.float32)
    return Table(columns, scores.shape[2], len(maps), tuple(map(_targets, scores)), explained)


TABLES: Mapping[Rows, Callable[[Float32[np.ndarray, "image layer element"]], Table]] = {
    "centred": centred,
    "raw": raw,
    "vector": vectors,
}


def deviations(
    maps: Float32[np.ndarray, "image layer element"],
) -> tuple[Float64[np.ndarray, "image layer element"], Bool[np.ndarray, "layer element"]]:
    """Every element's deviation from its mean over the images, and which elements vary by more than rounding.

    The deviation of those that do not is 0.
    """
    values = maps.astype(np.float64)
    deviation = values - values.mean(0)
    varies = np.linalg.norm(deviation, axis=0) > ROUNDING * np.linalg.norm(values, axis=0)
    return np.where(varies, deviation, 0), varies


def _components(vectors: Float64[np.ndarray, "image element"]) -> Float64[np.ndarray, "image component"]:
    u, s, _ = np.linalg.svd(vectors, full_matrices=False)
    scores: np.ndarray = (u * s)[:, :COMPONENTS]
    return scores


def _targets(scores: Float64[np.ndarray, "image component"]) -> tuple[Target, ...]:
    variance = np.square(scores).sum(0)
    varying = np.flatnonzero(variance > SMALLEST * len(scores))
    return tuple(Target(float(variance[k] / variance[varying].sum()), scores[:, k]) for k in varying)
