"""Random forests for regression, the same as scikit-learn's with its defaults, in less than a tenth of the time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt32

from dia_analysis.importance.trees import Tree, grow, predict

T = TypeVar("T")
WORTH_THREADS = 2**13  # values that a tree sees


@dataclass(frozen=True)
class Columns:
    """Inputs of forests, with the rows' order in every column, found once for all the trees that use them."""

    values: Float32[np.ndarray, "column row"]
    order: UInt32[np.ndarray, "column row"]

    @classmethod
    def sort(cls, values: Float32[np.ndarray, "column row"]) -> "Columns":
        """Find the orders."""
        values = np.ascontiguousarray(values)
        return cls(values, np.argsort(values, axis=1, kind="stable").astype(np.uint32))

    def first(self, count: int) -> "Columns":
        """The first columns."""
        return Columns(self.values[:count], self.order[:count])


@dataclass(frozen=True)
class Bootstrap:
    """For every tree the state of its random numbers, and how often each row is drawn.

    They are those of scikit-learn's `RandomForestRegressor(trees, random_state=seed)`.
    """

    states: UInt32[np.ndarray, "tree"]
    counts: UInt32[np.ndarray, "tree row"]

    @classmethod
    def draw(cls, rows: int, trees: int, seed: int) -> "Bootstrap":
        """As many draws as there are rows, with replacement, for every tree."""
        seeds = np.random.RandomState(seed).randint(np.iinfo(np.int32).max, size=trees)
        drawn = (np.random.RandomState(seed).randint(0, rows, rows) for seed in seeds)
        counts = np.stack([np.bincount(indices, minlength=rows) for indices in drawn])
        states = [np.random.RandomState(seed).randint(np.iinfo(np.int32).max) for seed in seeds]
        return cls(np.array(states, np.uint32), counts.astype(np.uint32))


@dataclass(frozen=True)
class Forest:
    """Grown trees."""

    trees: tuple[Tree, ...]

    def importance(self) -> Float64[np.ndarray, "tree column"]:
        """Gini importance by tree: each column's share in the decrease of variance; NaN for a tree without a split.

        The mean over trees is scikit-learn's `feature_importances_`.
        """
        gains = np.array([tree.gain for tree in self.trees])
        total = gains.sum(1, keepdims=True)
        return gains / np.where(total > 0, total, np.nan)

    def predict(
        self, rows: Float32[np.ndarray, "row column"], other: Int64[np.ndarray, "row"], sources: int, width: int
    ) -> tuple[Float64[np.ndarray, "row"], Float64[np.ndarray, "row source"]]:
        """The predictions, and by source those with the source's `width` columns taken from the row `other`."""

        parts = _in_threads(rows.size, partial(_predict, rows, other, sources, width), self.trees)
        predicted, changes = (np.concatenate(part) for part in zip(*parts, strict=True))
        mean = predicted.mean(0)
        return mean, mean[:, None] + changes.mean(0)


def grow_forest(
    columns: Columns, y: Float64[np.ndarray, "row"], bootstrap: Bootstrap, smallest_split: int = 2
) -> Forest:
    """Fit a forest that predicts `y` from the columns; nodes of fewer than `smallest_split` rows are leaves.

    Runs on as many threads as torch does, which OMP_NUM_THREADS sets; the result does not depend on how many.
    """

    draws = list(zip(bootstrap.states, bootstrap.counts, strict=True))
    parts = _in_threads(columns.values.size, partial(_grow, columns, y, smallest_split), draws)
    return Forest(tuple(chain.from_iterable(parts)))


def _grow(columns: Columns, y: Float64[np.ndarray, "row"], smallest_split: int, draws: Sequence[Any]) -> list[Tree]:
    return [
        Tree(*grow(columns.values, columns.order, y, counts, state or np.uint32(1), smallest_split))
        for state, counts in draws
    ]


def _predict(
    rows: Float32[np.ndarray, "row column"],
    other: Int64[np.ndarray, "row"],
    sources: int,
    width: int,
    trees: Sequence[Tree],
) -> tuple[Float64[np.ndarray, "tree row"], Float64[np.ndarray, "tree row source"]]:
    predicted, changes = np.zeros((len(trees), len(rows))), np.zeros((len(trees), len(rows), sources))
    for tree, of_tree, change in zip(trees, predicted, changes, strict=True):
        predict(rows, other, width, tree.column, tree.threshold, tree.child, tree.value, of_tree, change)
    return predicted, changes


def _in_threads(work: int, function: Callable[[Sequence[Any]], T], trees: Sequence[Any]) -> list[T]:
    """Each thread does consecutive trees; with little to do they are done sooner than threads are started."""
    threads = torch.get_num_threads()
    if threads == 1 or work < WORTH_THREADS:
        return [_interruptible(partial(function, trees))]
    size = -(-len(trees) // threads)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, [trees[i : i + size] for i in range(0, len(trees), size)]))


def _interruptible(action: Callable[[], T]) -> T:
    """Do an action that calls compiled functions: an interrupt leaves them as the first cause of SystemErrors."""
    try:
        return action()
    except SystemError as error:
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        if isinstance(first, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
