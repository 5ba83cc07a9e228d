"""Similarities besides r and CKA: against scipy and plain loops, with another image's map, and where undefined."""

from itertools import combinations

import numpy as np
import pytest
import scipy.stats
import torch

from dia_analysis import AnalysisInputError, StageMaps, measure_correlation
from dia_analysis.correlation.likeness import SIMILARITIES, directions, over_heads
from tests.support.gates import Gates

pytestmark = pytest.mark.numeric
PAIRS = list(combinations(range(3), 2))
BY_HAND = {
    "spearman": lambda a, b: scipy.stats.spearmanr(a, b)[0],
    "cosine": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
    "logit": lambda a, b: np.corrcoef(np.log(a / (1 - a)), np.log(b / (1 - b)))[0, 1],
    "sorted": lambda a, b: np.corrcoef(np.sort(a), np.sort(b))[0, 1],
}


def gates(images=9, channels=20):
    return torch.sigmoid(torch.randn(1, 1, channels) + torch.randn(images, 3, channels))


def measured(maps, *names):
    return measure_correlation(Gates(3), maps.split(4), similarity=names).stages[0].readings.similarities


@pytest.mark.parametrize("name", SIMILARITIES)
def test_each_equals_a_plain_loop(name):
    maps = gates()
    maps[:, :, :3] = 0.5  # equal values share their rank
    found = measured(maps, name)[name]
    arrays, alike = maps.double().numpy(), BY_HAND[name]
    expected = np.mean([alike(image[a], image[b]) for image in arrays for a, b in PAIRS])
    others = [alike(arrays[i, a], arrays[j, b]) for i in range(9) for j in range(9) if i != j for a, b in PAIRS]
    assert found.mean.value == pytest.approx(expected, abs=1e-9)
    assert found.other_image.value == pytest.approx(np.mean(others), abs=1e-9)
    assert found.matrix[0, 1] == pytest.approx(np.mean([alike(m[0], m[1]) for m in arrays]), abs=1e-9)


def test_a_reading_that_gives_the_same_in_any_order_is_seen_to():
    found = measured(gates(), *SIMILARITIES)
    assert found["cosine"].null.mean > 0.7  # gates are positive
    assert abs(found["spearman"].null.mean) < 0.05
    assert found["sorted"].null.mean == found["sorted"].mean.value > 0.9


def test_what_is_not_defined_is_left_out():
    maps = gates()
    maps[0, 1] = 0.5
    maps[1, 2] = 0.0
    maps[2, 0, 0] = float("nan")
    found = measured(maps, *SIMILARITIES)
    arrays = maps.double().numpy()
    assert found["spearman"].matrix[0, 1] == pytest.approx(
        np.mean([BY_HAND["spearman"](m[0], m[1]) for m in arrays[[1, *range(3, 9)]]])
    )
    assert found["cosine"].matrix[0, 2] == pytest.approx(
        np.mean([BY_HAND["cosine"](m[0], m[2]) for m in arrays[[0, *range(3, 9)]]])
    )
    assert np.isnan(measured(torch.full((5, 3, 8), 0.5), "spearman")["spearman"].mean.value)
    assert np.isnan(measured(gates() + 1, "logit")["logit"].mean.value)


def test_self_attention_is_compared_as_the_mean_over_heads_column_by_column():
    maps = torch.rand(2, 2, 3, 4, 4).softmax(4)  # image, layer, head, row, column
    stage = StageMaps("self-attention", (("a", 0), ("b", 0)), maps.flatten(2), (3, 4, 4))
    averaged = over_heads(stage)
    units = directions("cosine", averaged.maps, averaged)
    mean = maps.mean(2).double()
    expected = torch.nn.functional.cosine_similarity(mean[:, 0], mean[:, 1], dim=1).mean(1)
    torch.testing.assert_close((units[:, 0] * units[:, 1]).sum(1), expected)


def test_the_document_has_them_and_an_unknown_one_is_an_error():
    stage = measure_correlation(Gates(3), gates().split(4), similarity=["pearson", "spearman"]).to_dict()["stages"][0]
    assert stage["similarity"]["spearman"].keys() == {
        *("mean", "mean_interval", "other_image", "other_image_interval", "matrix", "null")
    }
    message = "'kendall' is none; give some of: pearson, cka, spearman, cosine, logit, sorted"
    with pytest.raises(AnalysisInputError, match=message):
        measure_correlation(Gates(3), gates().split(4), similarity=["kendall"])
