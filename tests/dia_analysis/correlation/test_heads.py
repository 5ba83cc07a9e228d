"""Heads of self-attention have no order: planted heads in another order are found, and judged on other images."""

import numpy as np
import pytest
import torch
from torch import nn

from dia_analysis import measure_correlation

pytestmark = pytest.mark.numeric
HEADS, TOKENS = 3, 4


class Attention(nn.Module):
    """Its maps are softmax of its input (image, layer, head, query, key)."""

    def __init__(self, layers=2):
        super().__init__()
        self.maps = nn.ModuleList(nn.Softmax(-1) for _ in range(layers))

    def forward(self, x):
        return sum(softmax(x[:, i]).sum() for i, softmax in enumerate(self.maps))


def planted(order=(2, 0, 1), images=80, noise=0.0):
    """The second layer has the heads of the first in another order, with noise."""
    one = 3 * torch.randn(images, HEADS, TOKENS, TOKENS)
    return torch.stack([one, one[:, list(order)] + noise * torch.randn_like(one)], 1)


def measured(maps, **how):
    return measure_correlation(Attention(maps.shape[1]), maps.split(8), points="maps.*", **how).stages[0]


def test_heads_in_another_order_are_matched():
    heads = measured(planted()).readings.heads
    for reading in heads.readings.values():
        assert reading.mean.value == pytest.approx(1, abs=1e-6)  # products are in float32
        assert reading.matrix[0, 1] == pytest.approx(1, abs=1e-6)
        assert max(reading.null.mean, reading.by_index.value) < 0.9  # other heads, of cosine 0.6 or so
    r, cosine = (heads.readings[name] for name in ("r", "cosine"))
    assert abs(r.other_image) < 0.1 < 0.4 < cosine.other_image  # rows that are not negative are alike by themselves
    assert r.by_index.value == pytest.approx(0, abs=0.1)


def test_matching_is_judged_on_images_that_did_not_match():
    maps = torch.randn(12, 2, HEADS, TOKENS, TOKENS)  # noise, of which the best match of all images would look alike
    heads = measured(maps).readings.heads
    assert heads.fit_images + heads.images == 12
    assert min(heads.fit_images, heads.images) > 0
    draws = [measured(torch.randn_like(maps)).readings.heads.readings["r"].mean.value for _ in range(4)]
    # Of noise, r of one image and head has a variance of 1 / 15; the mean is over 4 draws, 3 heads, some 6 images.
    assert abs(np.mean(draws)) < 4 / np.sqrt(15 * 4 * HEADS * 4)


def test_the_mean_over_heads_is_what_else_is_measured_or_heads_by_their_numbers():
    maps = planted(noise=2.0)
    mean, numbered = measured(maps), measured(maps, by_index=True)
    softmax = maps.softmax(-1).double().numpy()

    def r(some):
        return np.mean([np.corrcoef(image[0].ravel(), image[1].ravel())[0, 1] for image in some])

    assert mean.mean_r == pytest.approx(r(softmax.mean(2)), abs=1e-5)  # maps are float32
    assert numbered.mean_r == pytest.approx(r(softmax), abs=1e-5)
    assert (mean.channels, numbered.channels) == (TOKENS**2, HEADS * TOKENS**2)
    assert not mean.readings.by_index
    assert numbered.readings.by_index
    assert mean.mean_r > numbered.mean_r + 0.2
    columns = torch.cosine_similarity(*(torch.from_numpy(softmax.mean(2)[:, i]) for i in (0, 1)), dim=1).mean()
    assert mean.readings.similarities["cosine"].mean.value == pytest.approx(float(columns), abs=1e-6)


def test_text_and_document_have_the_heads():
    result = measure_correlation(Attention(), planted().split(8), points="maps.*")
    text, stage = result.summary(), result.to_dict()["stages"][0]
    assert "Heads have no order. All other tables are of their mean." in text
    assert {"heads", "fit_images", "images", "r", "cosine"} == stage["heads"].keys()
    assert {"mean", "mean_interval", "by_index", "other_image", "null"} < stage["heads"]["r"].keys()


@pytest.mark.parametrize(("maps", "why"), [(planted(images=1), "one image"), (planted()[:, :1], "one layer")])
def test_nothing_is_matched_where_there_is_nothing_to_match(maps, why):
    assert measured(maps).readings.heads is None, why
