"""Forests: against scikit-learn's, by hand, and where nothing can be split."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor

from dia_analysis.importance.forest import Bootstrap, Columns, Forest, grow_forest
from dia_analysis.importance.trees import Tree, grow

pytestmark = pytest.mark.numeric


def related(rows=400, columns=4, seed=0):
    """Columns that correlate, and a target that depends on two of them."""
    random = np.random.default_rng(seed)
    common = random.normal(size=rows)
    x = (common + 0.5 * random.normal(size=(columns, rows))).astype(np.float32)
    return x, np.sin(2 * x[1]) + 0.5 * x[-1] + 0.3 * random.normal(size=rows)


def one_tree(x, y, counts=None, smallest=2, state=1):
    """A tree on columns given as lists."""
    columns = Columns.sort(np.array(x, np.float32))
    counts = np.ones(columns.values.shape[1]) if counts is None else counts
    drawn = counts.astype(np.uint32)
    return Tree(*grow(columns.values, columns.order, np.array(y, np.float64), drawn, np.uint32(state), smallest))


def test_gains_by_hand():
    """y = 0, 0, 2, 4 has squares 11 about its mean. The first column parts 0 0 | 2 4, which leaves 2: gain 9 (the
    second, 0 0 2 | 4, would leave 8/3). Then 2 | 4 is parted, gain 2, by either column, whichever is visited first."""
    drawn = [one_tree([[1, 2, 3, 4], [0, 0, 0, 1], [7, 7, 7, 7]], [0, 0, 2, 4], state=state) for state in range(1, 9)]
    gains = {tuple(np.round(tree.gain, 9)) for tree in drawn}
    assert gains == {(11, 0, 0), (9, 2, 0)}
    tree = next(tree for tree in drawn if tree.gain[1])
    assert (tree.column[0], tree.threshold[0], tree.value[0]) == (0, 2.5, 1.5)
    assert sorted(tree.value[tree.column < 0]) == [0, 2, 4]
    np.testing.assert_allclose(Forest((tree,)).importance(), [[9 / 11, 2 / 11, 0]])


def test_a_row_drawn_twice_counts_twice():
    """The same tree as with the row written twice."""
    counted = one_tree([[1, 2, 3]], [0, 3, 5], np.array([1, 2, 1]))
    written = one_tree([[1, 2, 2, 3]], [0, 3, 3, 5])
    np.testing.assert_allclose(counted.gain, written.gain)
    assert counted.value.tolist() == written.value.tolist()
    assert one_tree([[1, 2, 3]], [0, 3, 5], np.array([1, 0, 1])).gain[0] == pytest.approx(12.5)


def rounded_channels():
    """Maps that fall into clusters, so that columns part the rows the same way all the time, and constant columns."""
    random = np.random.default_rng(0)
    x = np.repeat(random.random((4, 12)), 30, axis=1) + 0.002 * random.random((4, 360))
    x[2] = np.where(x[0] < 0.5, 0.25, x[2])
    return x[:3].astype(np.float32), x[3].astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("smallest", [2, 20])
@pytest.mark.parametrize("data", [related, rounded_channels])
def test_a_forest_is_scikit_learns_but_for_rounding_in_ties(data, smallest):
    x, y = data()
    forest = grow_forest(Columns.sort(x), y, Bootstrap.draw(len(y), 100, 3), smallest)
    plain = RandomForestRegressor(100, random_state=3, min_samples_split=smallest).fit(x.T, y)
    np.testing.assert_allclose(forest.importance().mean(0), plain.feature_importances_, atol=0.01)
    predicted = forest.predict(x.T.copy(), np.arange(len(y)), len(x), 1)[0]
    assert np.corrcoef(predicted, plain.predict(x.T))[0, 1] > 0.9999


def test_another_seed_gives_another_importance():
    """By more than what is allowed between ours and scikit-learn's, so that only the same random numbers will do."""
    x, y = rounded_channels()
    columns = Columns.sort(x)
    first, other = (grow_forest(columns, y, Bootstrap.draw(len(y), 100, k)).importance().mean(0) for k in (0, 1))
    assert np.abs(first - other).max() > 0.01


def test_the_bootstrap_is_scikit_learns():
    plain = RandomForestRegressor(3, random_state=5).fit(np.arange(50)[:, None], np.arange(50))
    drawn = [np.bincount(indices, minlength=50) for indices in plain.estimators_samples_]
    assert Bootstrap.draw(50, 3, 5).counts.tolist() == np.array(drawn).tolist()


def test_equal_columns_share_the_importance_on_average():
    x, y = related()
    forest = grow_forest(Columns.sort(np.concatenate([x, x[1:2]])), y, Bootstrap.draw(len(y), 60, 0))
    importance = forest.importance().mean(0)
    assert importance[1] > 0.3
    assert importance[4] == pytest.approx(importance[1], rel=0.5)  # of 60 trees, a coin's throw each


def test_nothing_is_split_where_nothing_differs():
    assert one_tree([[1, 1, 1]], [0, 1, 2]).gain.tolist() == [0]
    assert one_tree([[0.5, 0.5 + 6e-8, 0.9]], [0, 1, 2]).column.tolist() == [0, -1, -1]
    constant = one_tree([[1, 2, 3]], [4, 4, 4])
    assert (constant.gain.tolist(), constant.column.tolist(), constant.value.tolist()) == ([0], [-1], [4])
    assert np.isnan(Forest((constant,)).importance()).all()


def test_a_source_taken_from_another_row_changes_the_prediction_as_predicting_anew_does():
    x, y = related(columns=6)
    forest = grow_forest(Columns.sort(x), y, Bootstrap.draw(len(y), 5, 0))
    rows, other = x.T[:50].copy(), np.random.default_rng(0).permutation(50)
    same = np.arange(50)
    predicted, without = forest.predict(rows, other, 3, 2)
    assert np.ptp(without - predicted[:, None], axis=0).min() > 0.1
    for source in range(3):
        changed = rows.copy()
        changed[:, 2 * source : 2 * source + 2] = rows[other, 2 * source : 2 * source + 2]
        np.testing.assert_allclose(without[:, source], forest.predict(changed, same, 3, 2)[0], atol=1e-12)


def test_the_number_of_threads_does_not_matter():
    x, y = related()
    before = torch.get_num_threads()
    grown = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        grown.append(grow_forest(Columns.sort(x), y, Bootstrap.draw(len(y), 6, 0)).importance())
    torch.set_num_threads(before)
    assert (grown[0] == grown[1]).all()


@pytest.mark.parametrize(("cause", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (None, SystemError)])
def test_an_interrupt_of_compiled_code_is_an_interrupt(monkeypatch, cause, raised):
    def cut(*_):
        inner = SystemError("returned a result with an exception set")
        inner.__cause__ = cause
        raise SystemError("returned a result with an exception set") from inner

    monkeypatch.setattr("dia_analysis.importance.forest.grow", cut)
    columns = Columns.sort(np.zeros((1, 4), np.float32))
    with pytest.raises(raised):
        grow_forest(columns, np.zeros(4), Bootstrap.draw(4, 1, seed=0))
