"""Regression trees, compiled: the trees that scikit-learn grows with its defaults, from columns sorted once.

A row's place in every column's order is found once, before any tree. A node is then one stretch of all orders: finding
its best split is one pass along each, and splitting it deals each order out to the two children, in order. scikit-learn
sorts every node anew.

Columns often tie, as they part a node's rows the same way. scikit-learn then takes the one it visits first, or the one
that its rounding favours, and so its importances depend on its random numbers, by more than 0.01 with 100 trees. Hence
its order of visits and its rounding are followed here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, no_type_check

import numpy as np
from numba import njit

SAME_VALUE = np.float32(1e-7)  # scikit-learn does not split between values that are closer
PURE = float(np.finfo(np.float64).eps)  # nor a node whose variance is smaller
TIED = 1 - 1e-10  # gains that differ by rounding only, and then usually part the rows the same way
ONE = np.uint64(1)


class Tree(NamedTuple):
    """A grown tree. `gain` (column) is each column's decrease of the weighted sum of squares.

    By node, the root first: `column` that it splits (-1 for a leaf), `threshold` up to which rows go left, `child`,
    the number of the left child, which the right one follows, and `value` (node, output), the rows' mean.
    """

    gain: np.ndarray
    column: np.ndarray
    threshold: np.ndarray
    child: np.ndarray
    value: np.ndarray


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, without holding the interpreter's lock, and keep the result on disk if possible."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder that can be written to
        return njit(nogil=True)(function)


@no_type_check
@compiled
def grow(x, order, y, counts, random, smallest):
    """Grow a tree until leaves are pure or have less than `smallest` rows, at least 2; give a Tree's fields.

    `x` (column, row) float32; `order` (column, row) uint32, the rows by increasing value; `y` (row) float64;
    `counts` (row) uint32, how often the bootstrap drew a row; `random` uint32, the state of the tree's random numbers.
    """
    columns = len(x)
    orders = _drawn_rows(order, counts)
    rows = orders.shape[2] - 1
    reciprocal = _reciprocals(counts)
    scale, deviation, left = np.empty(len(reciprocal)), np.empty(len(y)), np.empty(len(y), np.bool_)
    tied, ends = np.empty(columns, np.int64), np.empty(columns, np.uint64)
    visits, unvisited, constants = np.empty(columns, np.int64), np.arange(columns), np.empty(columns, np.int64)
    gain, column, child = np.zeros(columns), np.empty(2 * rows, np.int32), np.empty(2 * rows, np.int32)
    threshold, value = np.empty(2 * rows), np.empty(2 * rows)
    stack = np.empty((rows + 1, 4), np.uint64)  # a node's number, where its stretch begins and ends, known constants
    sides, impurities = np.empty(rows + 1, np.uint8), np.empty(rows + 1)  # in which of the orders the stretch is
    _push(stack, sides, impurities, 0, 0, 0, rows, 0, 0, np.inf)
    waiting, nodes = 1, 1
    while waiting:
        waiting -= 1
        node, start, end, side = stack[waiting, 0], stack[waiting, 1], stack[waiting, 2], sides[waiting]
        source = orders[side]
        column[node] = -1
        weight, total, squares = _sums(source[columns - 1], start, end, y, counts)
        mean = total / weight
        value[node] = mean
        impurity = impurities[waiting] if node else squares / weight - mean**2
        if end - start < smallest or impurity <= PURE:
            continue
        known = np.int64(stack[waiting, 3])
        random, known, first = _visit(source, start, end, x, unvisited, constants, known, random, visits)
        if known == columns:
            continue
        spread = _deviations(source[columns - 1], start, end, y, counts, mean, deviation)
        if end - start == 2:
            best, split, middle = spread / weight, first, start + ONE
        else:
            _scales(reciprocal, weight, scale)
            best, ties = _best_splits(source, start, end, x, counts, deviation, scale, tied, ends)
            if ties == 0:
                continue
            choice = _choose(source, start, total, weight, y, counts, visits, tied, ends, ties) if ties > 1 else 0
            split, middle = tied[choice], ends[choice]
        gain[split] += best * weight
        column[node], child[node] = split, nodes
        threshold[node] = _between(x[split, source[split, middle - ONE]], x[split, source[split, middle]])
        if end - start == 2:
            _leaves(column, value, nodes, y, source[split], start)
        else:
            low, high = _impurities(source[split], start, middle, y, counts, weight, total, squares)
            _deal(source, orders[1 - side], split, start, middle, end, left)
            _push(stack, sides, impurities, waiting, nodes + 1, middle, end, known, 1 - side, high)
            _push(stack, sides, impurities, waiting + 1, nodes, start, middle, known, 1 - side, low)
            waiting += 2
        nodes += 2
    return gain, column[:nodes], threshold[:nodes], child[:nodes], value[:nodes]


@no_type_check
@compiled
def _push(stack, sides, impurities, place, node, start, end, known, side, impurity):
    """Let a node wait."""
    stack[place, 0], stack[place, 1], stack[place, 2], stack[place, 3] = node, start, end, known
    sides[place], impurities[place] = side, impurity


@no_type_check
@compiled
def _sums(rows, start, end, y, counts):
    """The weight of a node's rows, and the weighted sums of y and of its squares."""
    weight, total, squares = np.uint64(0), 0.0, 0.0
    for p in range(start, end):
        row = rows[p]
        part = counts[row] * y[row]
        weight += counts[row]
        total += part
        squares += part * y[row]
    return weight, total, squares


@no_type_check
@compiled
def _deviations(rows, start, end, y, counts, mean, deviation):
    """The rows' weighted deviations from the mean, into `deviation`; gives the weighted sum of their squares."""
    spread = 0.0
    for p in range(start, end):
        row = rows[p]
        distance = y[row] - mean
        deviation[row] = counts[row] * distance
        spread += deviation[row] * distance
    return spread


@no_type_check
@compiled
def _scales(reciprocal, weight, scale):
    """1 / (left * right) for every weight left of a split of a node, into `scale`."""
    for w in range(ONE, weight):
        scale[w] = reciprocal[w] * reciprocal[weight - w]


@no_type_check
@compiled
def _leaves(column, value, nodes, y, rows, start):
    """Two rows become leaves."""
    for p in range(2):
        column[nodes + p], value[nodes + p] = -1, y[rows[start + p]]


@no_type_check
@compiled
def predict(x, other, width, column, threshold, child, value, predicted, change):
    """Add a tree's prediction for rows, `x` (row, column), to `predicted` (row), and to `change` (row, source) how it
    differs if the columns of one source, `width` of them, are taken from the row `other` (row) instead.

    Only where the other row's value leaves a node by the other side is the rest of its way followed: with many sources
    that is a small part of predicting anew for every source.
    """
    left_for = np.full(change.shape[1], -1, np.int64)  # the last row whose way parted, by source
    parted = np.empty(change.shape[1], np.int64)
    for row in range(len(x)):
        node, count = 0, 0
        while column[node] >= 0:
            c = column[node]
            source = c // width
            right = x[row, c] > threshold[node]
            other_right = x[other[row], c] > threshold[node]
            if right != other_right and left_for[source] != row:
                left_for[source] = row
                parted[count] = source
                count += 1
                change[row, source] += _follow(
                    x, row, other[row], source, width, column, threshold, child, value, child[node] + other_right
                )
            node = child[node] + right
        predicted[row] += value[node]
        for i in range(count):
            change[row, parted[i]] -= value[node]


@no_type_check
@compiled
def _follow(x, row, other, source, width, column, threshold, child, value, node):
    """The value at the end of a row's way from a node on, one source's columns taken from another row."""
    while column[node] >= 0:
        c = column[node]
        taken = other if c // width == source else row
        node = child[node] + (x[taken, c] > threshold[node])
    return value[node]


@no_type_check
@compiled
def _drawn_rows(order, counts):
    """The orders without rows that the bootstrap left out, and room to deal them out: (2, column, row + 1)."""
    drawn = 0
    for row in range(len(counts)):
        drawn += counts[row] > 0
    orders = np.empty((2, len(order), drawn + 1), np.uint32)
    for f in range(len(order)):
        given, drawn_rows = order[f], orders[0, f]
        kept = np.uint64(0)
        for p in range(len(given)):
            row = given[p]
            drawn_rows[kept] = row  # overwritten by the next if it was not drawn, hence one place more
            kept += np.uint64(counts[row] > 0)
    return orders


@no_type_check
@compiled
def _reciprocals(counts):
    """1 / w up to the sum of the counts."""
    total = 0
    for row in range(len(counts)):
        total += counts[row]
    reciprocal = np.empty(total + 1)
    for w in range(1, total + 1):
        reciprocal[w] = 1.0 / w
    return reciprocal


@no_type_check
@compiled
def _visit(source, start, end, x, unvisited, constants, known, random, visits):
    """Number the columns in the order in which scikit-learn would visit them, by its random numbers.

    The first `known` of `constants` do not vary in the node, as they did not in its parent. Gives the state of the
    random numbers, how many columns are then known not to vary, and the first that varies.
    """
    remaining, drawn, found, visit, first = len(x), 0, 0, 0, 0
    while remaining > known + found:
        random = np.uint32(random ^ (random << 13))  # Marsaglia's xorshift, of 32 bits
        random = np.uint32(random ^ (random >> 17))
        random = np.uint32(random ^ (random << 5))
        j = drawn + np.int64(random & np.uint32(0x7FFFFFFF)) % (remaining - found - drawn)
        if j < known:
            unvisited[drawn], unvisited[j] = unvisited[j], unvisited[drawn]
            drawn += 1
            continue
        j += found
        f = unvisited[j]
        if x[f, source[f, end - ONE]] <= x[f, source[f, start]] + SAME_VALUE:
            unvisited[j], unvisited[known + found] = unvisited[known + found], f
            found += 1
            continue
        remaining -= 1
        unvisited[j], unvisited[remaining] = unvisited[remaining], f
        visits[f] = visit
        first = f if visit == 0 else first
        visit += 1
    for k in range(known):
        unvisited[k] = constants[k]
    for k in range(known, known + found):
        constants[k] = unvisited[k]
    return random, known + found, first


@no_type_check
@compiled
def _best_splits(source, start, end, x, counts, deviation, scale, tied, ends):
    """The best gain, divided by the node's weight, and how many columns have it, listed in `tied` and `ends`.

    A split's gain is s² / left + s² / right, with s the sum of deviations on the left. Later columns, which tend to
    be better, come first, and a column starts at the best gain so far: then the branch is seldom taken and well
    predicted, which halves the time of a tree.
    """
    best, ties = 0.0, 0
    for f in range(len(x) - 1, -1, -1):
        rows, values = source[f], x[f]
        found, middle = best * TIED, start
        weight, total = np.uint64(0), 0.0
        for p in range(start, end - ONE):
            row = rows[p]
            weight += counts[row]
            total += deviation[row]
            gain = total * total * scale[weight]
            if gain > found and values[rows[p + ONE]] > values[row] + SAME_VALUE:
                found, middle = gain, p + ONE
        if middle > start:
            if found * TIED > best:
                ties = 0
            best = max(best, found)
            tied[ties], ends[ties] = f, middle
            ties += 1
    return best, ties


@no_type_check
@compiled
def _choose(source, start, total, weight, y, counts, visits, tied, ends, ties):
    """Which of the tied splits has the highest gain as scikit-learn rounds it; if several, the one it visits first."""
    highest, choice = -1.0, 0
    for i in range(ties):
        rows = source[tied[i]]
        left, left_weight = 0.0, np.uint64(0)
        for p in range(start, ends[i]):
            left += counts[rows[p]] * y[rows[p]]
            left_weight += counts[rows[p]]
        right = total - left
        gain = left * left / left_weight + right * right / (weight - left_weight)
        if gain > highest or (gain == highest and visits[tied[i]] < visits[tied[choice]]):
            highest, choice = gain, i
    return choice


@no_type_check
@compiled
def _impurities(rows, start, middle, y, counts, weight, total, squares):
    """The variances left and right of a split, as scikit-learn rounds them: they decide what is pure."""
    left_weight, left_total, left_squares = np.uint64(0), 0.0, 0.0
    for p in range(start, middle):
        part = counts[rows[p]] * y[rows[p]]
        left_weight += counts[rows[p]]
        left_total += part
        left_squares += part * y[rows[p]]
    right_weight = weight - left_weight
    left = left_squares / left_weight - (left_total / left_weight) ** 2
    right = (squares - left_squares) / right_weight - ((total - left_total) / right_weight) ** 2
    return left, right


@no_type_check
@compiled
def _deal(source, target, split, start, middle, end, left):
    """Deal a node's stretch of every order to its children's, left before right, keeping the order in each."""
    given = source[split]
    for p in range(start, middle):
        left[given[p]] = True
    for p in range(middle, end):
        left[given[p]] = False
    for f in range(len(source)):
        rows, dealt = source[f], target[f]
        low, high = start, middle
        for p in range(start, end):
            row = rows[p]
            goes_left = left[row]
            dealt[low if goes_left else high] = row
            low += np.uint64(goes_left)
            high += np.uint64(not goes_left)


@no_type_check
@compiled
def _between(low, high):
    """The threshold half way; a value that rounds to the higher one goes to the lower."""
    middle = np.float64(low) / 2 + np.float64(high) / 2
    return middle if middle < high else np.float64(low)
