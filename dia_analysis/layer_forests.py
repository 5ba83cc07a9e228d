"""Forests that predict each layer of a stage from those before it: statistics on arrays, without a network."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from dia_analysis.forest import Bootstrap, Columns, grow_forest
from dia_analysis.importance import Importance
from dia_analysis.trees import PURE

TREES = 100
REPEATS = 5  # forests that the trees are divided into
FOLDS = 5
FOLD_TREES = 20
FOLD_SPLIT = 20  # rows of the smallest node that they split, so that noise scores close to 0
TRAINED_ROWS = 4096  # at most, for the forests that are tested on held-out images
TESTED_ROWS = 1024
COMPONENTS = 8  # principal components that a vector is described by, at most


@dataclass(frozen=True)
class Target:
    """What forests predict: values by row, and what they count for among a layer's."""

    share: float
    values: Float64[np.ndarray, "row"]


@dataclass(frozen=True)
class Table:
    """Rows for forests: `width` columns for each layer, the image that a row is of, and each layer as a target.

    `explained` is the share of the layers' variance that the columns hold, where they do not hold all.
    """

    columns: Float32[np.ndarray, "column row"]
    width: int
    image: Int64[np.ndarray, "row"]
    targets: tuple[tuple[Target, ...], ...]
    explained: float | None = None


def pairs(maps: Float32[np.ndarray, "image layer element"]) -> Table:
    """A row for every (image, element) pair, a column for every layer."""
    images, layers, elements = maps.shape
    columns = maps.transpose(1, 0, 2).reshape(layers, -1)
    targets = tuple((Target(1.0, column.astype(np.float64)),) for column in columns)
    return Table(columns, 1, np.repeat(np.arange(images), elements), targets)


def vectors(maps: Float32[np.ndarray, "image layer element"]) -> Table:
    """A row for every image; a layer's vector is described by its first 8 principal components, a column for each.

    As a target, each component counts for its share in the variance.
    """
    images, layers, _ = maps.shape
    scores = np.stack([_components(maps[:, layer].astype(np.float64)) for layer in range(layers)])
    columns = scores.transpose(0, 2, 1).reshape(-1, images).astype(np.float32)
    kept, there = np.square(scores).sum(), np.square(maps - maps.mean(0), dtype=np.float64).sum()
    explained = float(kept / there) if there > 0 else None
    return Table(columns, scores.shape[2], np.arange(images), tuple(map(_targets, scores)), explained)


def _components(vectors: Float64[np.ndarray, "image element"]) -> Float64[np.ndarray, "image component"]:
    u, s, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    scores: np.ndarray = (u * s)[:, :COMPONENTS]
    return scores


def _targets(scores: Float64[np.ndarray, "image component"]) -> tuple[Target, ...]:
    variance = np.square(scores).sum(0)
    varying = np.flatnonzero(variance > PURE * len(scores))
    return tuple(Target(float(variance[k] / variance[varying].sum()), scores[:, k]) for k in varying)


def measure(table: Table, seed: int, done: Callable[[], object] = lambda: None) -> Importance:
    """Predict each layer of a table from all that come before it. `done` is called after each of them."""
    layers = len(table.targets)
    columns = Columns.sort(table.columns)
    bootstrap = Bootstrap.draw(len(table.image), TREES, seed)
    folds = list(_folds(table, seed))
    square = (layers - 1, layers - 1)
    gini = np.full((REPEATS, *square), np.nan)
    r2, null_r2 = (np.full((len(folds), layers - 1), np.nan) for _ in range(2))
    permutation, null_permutation = (np.full((len(folds), *square), np.nan) for _ in range(2))
    for target in range(1, layers):
        at = (target - 1, slice(target))
        gini[:, *at] = _gini(columns.first(target * table.width), table, target, bootstrap)
        for k, fold in enumerate(folds):
            r2[k, at[0]], permutation[k, *at] = fold.score(target, null=False)
            null_r2[k, at[0]], null_permutation[k, *at] = fold.score(target, null=True)
        done()
    return Importance(gini, r2, null_r2, permutation, null_permutation)


def _gini(columns: Columns, table: Table, target: int, bootstrap: Bootstrap) -> Float64[np.ndarray, "repeat source"]:
    """The importance of every earlier layer, from each fifth of the trees."""
    total = np.zeros((REPEATS, target)) if table.targets[target] else np.full((REPEATS, target), np.nan)
    for part in table.targets[target]:
        trees = grow_forest(columns, part.values, bootstrap).importance()
        by_layer = trees.reshape(REPEATS, TREES // REPEATS, target, table.width).sum(3)
        split = ~np.isnan(by_layer[:, :, :1])  # scikit-learn too leaves out trees without a split
        count = split.sum(1)
        total += part.share * np.nan_to_num(by_layer).sum(1) / np.where(count, count, np.nan)
    return total


@dataclass(frozen=True)
class Fold:
    """Rows of some images to fit to and rows of the other images to test on, drawn once for all layers."""

    table: Table
    train: Int64[np.ndarray, "row"]
    test: Int64[np.ndarray, "tested"]
    columns: Columns
    tested: Float32[np.ndarray, "tested column"]
    other: Int64[np.ndarray, "tested"]
    shuffled: Int64[np.ndarray, "all"]
    bootstrap: Bootstrap

    @classmethod
    def draw(cls, table: Table, held_out: Int64[np.ndarray, "image"], seed: int) -> "Fold":
        """Hold images out, and take at most 4,096 rows of the others and 1,024 of theirs."""
        random = np.random.default_rng(seed)
        out = np.isin(table.image, held_out)
        train, test = (
            _some(random, np.flatnonzero(rows), most) for rows, most in ((~out, TRAINED_ROWS), (out, TESTED_ROWS))
        )
        return cls(
            table,
            train,
            test,
            Columns.sort(table.columns[:, train]),
            np.ascontiguousarray(table.columns[:, test].T),
            random.permutation(len(test)),
            random.permutation(len(out)),
            Bootstrap.draw(len(train), FOLD_TREES, int(random.integers(2**31))),
        )

    def score(self, target: int, *, null: bool) -> tuple[float, Float64[np.ndarray, "source"]]:
        """R² on the held-out rows, and what of it each source's shuffling costs; for a shuffled target if `null`."""
        r2, lost = (0.0, np.zeros(target)) if self.table.targets[target] else (np.nan, np.full(target, np.nan))
        columns = self.columns.first(target * self.table.width)
        for part in self.table.targets[target]:
            values = part.values[self.shuffled] if null else part.values
            forest = grow_forest(columns, values[self.train], self.bootstrap, FOLD_SPLIT)
            predicted, without = forest.predict(self.tested, self.other, target, self.table.width)
            truth = values[self.test]
            score = r_squared(truth, predicted[:, None])[0]
            r2 += part.share * score
            lost += part.share * (score - r_squared(truth, without))
        return r2, lost


def r_squared(
    truth: Float64[np.ndarray, "row"], predicted: Float64[np.ndarray, "row way"]
) -> Float64[np.ndarray, "way"]:
    """1 - the squared error / the variance, for each way to predict; NaN for a truth that is constant."""
    variance = np.square(truth - truth.mean()).sum()
    error: np.ndarray = np.square(truth[:, None] - predicted).sum(0)
    return 1 - error / (variance if variance > PURE * len(truth) else np.nan)


def _folds(table: Table, seed: int) -> Iterator[Fold]:
    images = np.random.default_rng(seed).permutation(np.unique(table.image))
    count = min(FOLDS, len(images))
    for k in range(count if count > 1 else 0):
        yield Fold.draw(table, images[k::count], seed + k)


def _some(random: np.random.Generator, rows: Int64[np.ndarray, "row"], most: int) -> Int64[np.ndarray, "some"]:
    return rows if len(rows) <= most else np.sort(random.choice(rows, most, replace=False))
