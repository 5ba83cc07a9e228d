"""Forests that predict each layer of a stage from those before it: statistics on arrays, without a network."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from dia_analysis.importance.forest import Bootstrap, Columns, grow_forest
from dia_analysis.importance.halves import LEAST, SPLITS, split
from dia_analysis.importance.rows import TABLES, Rows, Table, Target
from dia_analysis.importance.scores import Importance
from dia_analysis.importance.trees import PURE

TREES = 100
HALF_TREES = 10
HALF_ROWS = 2048  # at most, for a forest on half of the images
FOLDS = 5
FOLD_TREES = 20
FOLD_SPLIT = 20  # rows of the smallest node that they split, so that noise scores close to 0
TRAINED_ROWS = 4096  # at most, for the forests that are tested on held-out images
TESTED_ROWS = 1024


def measure(
    maps: Float32[np.ndarray, "image layer element"],
    rows: Rows,
    seed: int,
    done: Callable[[], object] = lambda: None,
    *,
    quick: bool = False,
) -> Importance:
    """Predict each layer from all that come before it. `done` is called after each of them.

    If `quick`, without the null and the halves, which take half of the time.
    """
    table, layers = TABLES[rows](maps), maps.shape[1]
    gini = np.full((layers - 1, layers - 1), np.nan)
    folds = list(_folds(table, seed))
    r2, null_r2 = (np.full((len(folds), layers - 1), np.nan) for _ in range(2))
    permutation, null_permutation = (np.full((len(folds), *gini.shape), np.nan) for _ in range(2))
    forests, random = Forests.of(table, TREES, seed), np.random.default_rng(seed)
    for target in range(1, layers):
        at = (target - 1, slice(target))
        gini[at] = forests.importance(target)
        shuffled = table.of_other_images(random)
        for k, fold in enumerate(folds):
            r2[k, at[0]], permutation[k, *at] = fold.score(target)
            if not quick:
                null_r2[k, at[0]], null_permutation[k, *at] = fold.score(target, shuffled)
        done()
    halves = np.empty((0, 2, *gini.shape)) if quick else halved(maps, rows, seed)
    return Importance(gini, halves, r2, null_r2, permutation, null_permutation)


def halved(
    maps: Float32[np.ndarray, "image layer element"], rows: Rows, seed: int
) -> Float64[np.ndarray, "split 2 target source"]:
    """The importance on the halves of the images, of forests of 10 trees on at most 2,048 rows; no split of few images.

    The whole is done anew for each half, centring and principal components too.
    """
    images, layers, _ = maps.shape
    halves = np.full((SPLITS if images >= LEAST else 0, 2, layers - 1, layers - 1), np.nan)
    random = np.random.default_rng(seed)
    for k, first in enumerate(split(images, seed)[: len(halves)]):
        for half, chosen in enumerate((first, ~first)):
            some = maps[chosen] if rows == "vector" else _thinned(maps[chosen], random)
            forests = Forests.of(TABLES[rows](some), HALF_TREES, seed + k)
            for target in range(1, layers):
                halves[k, half, target - 1, :target] = forests.importance(target)
    return halves


def _thinned(
    maps: Float32[np.ndarray, "image layer element"], random: np.random.Generator
) -> Float32[np.ndarray, "image layer some"]:
    """Fewer elements of all images, drawn at random, where there are too many rows."""
    return maps[:, :, _some(random, np.arange(maps.shape[2]), max(1, HALF_ROWS // len(maps)))]


@dataclass(frozen=True)
class Forests:
    """Forests on all rows of a table, that share the rows' orders and the bootstraps."""

    table: Table
    trees: int
    seed: int
    columns: Columns
    bootstrap: Bootstrap

    @classmethod
    def of(cls, table: Table, trees: int, seed: int) -> "Forests":
        """Sort the columns and draw the bootstraps."""
        rows = table.columns.shape[1]
        return cls(table, trees, seed, Columns.sort(table.columns), Bootstrap.draw(rows, trees, seed))

    def importance(self, target: int) -> Float64[np.ndarray, "source"]:
        """The Gini importance of every earlier layer; NaN where no tree could split."""
        total = np.zeros(target) if self.table.targets[target] else np.full(target, np.nan)
        for part in self.table.targets[target]:
            columns, values, bootstrap = self._known(part)
            trees = grow_forest(columns.first(target * self.table.width), values, bootstrap).importance()
            grown = trees[~np.isnan(trees[:, 0])]  # scikit-learn too leaves out trees without a split
            mean = grown.mean(0) if len(grown) else np.full(trees.shape[1], np.nan)
            total += part.share * mean.reshape(target, self.table.width).sum(1)
        return total

    def _known(self, part: Target) -> tuple[Columns, Float64[np.ndarray, "row"], Bootstrap]:
        """Without the rows in which the target has no value."""
        known = np.isfinite(part.values)
        if known.all():
            return self.columns, part.values, self.bootstrap
        columns = Columns.sort(self.table.columns[:, known])
        return columns, part.values[known], Bootstrap.draw(int(known.sum()), self.trees, self.seed)


@dataclass(frozen=True)
class Fold:
    """Rows of some images to fit to and rows of the other images to test on, drawn once for all layers."""

    table: Table
    train: Int64[np.ndarray, "row"]
    test: Int64[np.ndarray, "tested"]
    columns: Columns
    tested: Float32[np.ndarray, "tested column"]
    other: Int64[np.ndarray, "tested"]
    bootstrap: Bootstrap
    seed: int

    @classmethod
    def draw(cls, table: Table, held_out: Int64[np.ndarray, "image"], seed: int) -> "Fold":
        """Hold images out, and take at most 4,096 rows of the others and 1,024 of theirs."""
        random = np.random.default_rng(seed)
        out = np.isin(table.image, held_out)
        train, test = (
            _some(random, np.flatnonzero(rows), most) for rows, most in ((~out, TRAINED_ROWS), (out, TESTED_ROWS))
        )
        return cls._of(table, train, test, int(random.integers(2**31)))

    @classmethod
    def _of(
        cls,
        table: Table,
        train: Int64[np.ndarray, "row"],
        test: Int64[np.ndarray, "tested"],
        seed: int,
    ) -> "Fold":
        return cls(
            table,
            train,
            test,
            Columns.sort(table.columns[:, train]),
            np.ascontiguousarray(table.columns[:, test].T),
            np.random.default_rng(seed).permutation(len(test)),
            Bootstrap.draw(len(train), FOLD_TREES, seed),
            seed,
        )

    def score(
        self, target: int, shuffled: Int64[np.ndarray, "all"] | None = None
    ) -> tuple[float, Float64[np.ndarray, "source"]]:
        """R² on the held-out rows, and what of it each source's shuffling costs.

        For the null, `shuffled` gives each row another one, whose target it gets: the same in all folds.
        """
        parts = self.table.targets[target]
        r2, lost = (0.0, np.zeros(target)) if parts else (np.nan, np.full(target, np.nan))
        for part in parts:
            values = part.values if shuffled is None else part.values[shuffled]
            score, costs = self._known(values)._score(values, part.variance, target)
            r2 += part.share * score
            lost += part.share * costs
        return r2, lost

    def _known(self, values: Float64[np.ndarray, "all"]) -> "Fold":
        """This fold without the rows in which the target has no value."""
        known = np.isfinite(values)
        if known.all():
            return self
        train, test = (rows[known[rows]] for rows in (self.train, self.test))
        return self._of(self.table, train, test, self.seed)

    def _score(
        self, values: Float64[np.ndarray, "all"], variance: float, target: int
    ) -> tuple[float, Float64[np.ndarray, "source"]]:
        if not len(self.train) or not len(self.test):
            return np.nan, np.full(target, np.nan)
        width = self.table.width
        forest = grow_forest(self.columns.first(target * width), values[self.train], self.bootstrap, FOLD_SPLIT)
        predicted, without = forest.predict(self.tested, self.other, target, width)
        score, *others = r_squared(values[self.test], np.column_stack([predicted, without]), variance)
        return float(score), score - np.array(others)


def r_squared(
    truth: Float64[np.ndarray, "row"], predicted: Float64[np.ndarray, "row way"], variance: float
) -> Float64[np.ndarray, "way"]:
    """1 - the mean squared error / the variance, for each way to predict; NaN for a target that is constant.

    The variance is that of all rows: a fold's own is of few images, and one that happens to be small would outweigh
    all other folds.
    """
    error: np.ndarray = np.square(truth[:, None] - predicted).mean(0)
    return 1 - error / (variance if variance > PURE else np.nan)


def _folds(table: Table, seed: int) -> Iterator[Fold]:
    images = np.random.default_rng(seed).permutation(table.images)
    count = min(FOLDS, len(images))
    for k in range(count if count > 1 else 0):
        yield Fold.draw(table, images[k::count], seed + k)


def _some(random: np.random.Generator, rows: Int64[np.ndarray, "row"], most: int) -> Int64[np.ndarray, "some"]:
    return rows if len(rows) <= most else np.sort(random.choice(rows, most, replace=False))
