"""What likeness is by chance: against draws of plain loops, and independent of what is not permuted."""

import numpy as np
import pytest
import torch

from dia_analysis.correlation.nulls import permuted_channels, permuted_images
from tests.support.gates import of_maps

pytestmark = pytest.mark.numeric


def unit(values, axis):
    centered = values - values.mean(axis, keepdim=True)
    return centered / centered.norm(dim=axis, keepdim=True)


def test_permuted_channels_are_the_mean_r_of_maps_in_another_order():
    units = unit(torch.randn(5, 3, 6, dtype=torch.float64), 2)
    found = permuted_channels(units, seed=7, draws=3)
    orders = torch.rand(3, 3, 6, generator=torch.Generator().manual_seed(7)).argsort(2)
    for draw, order in zip(found, orders, strict=True):
        moved = torch.stack([units[:, layer, order[layer]] for layer in range(3)], 1)
        expected = (moved @ moved.mT).mean(0)[np.triu_indices(3, 1)]
        np.testing.assert_allclose(draw, expected, atol=1e-12)


def test_their_spread_is_that_of_unrelated_vectors():
    """Static maps: r of two vectors in random order has the standard deviation 1 / sqrt(channels - 1)."""
    units = unit(torch.rand(1, 2, 50).expand(4, -1, -1), 2)
    draws = permuted_channels(units, seed=0)
    assert draws.std() == pytest.approx(1 / 7, rel=4 / np.sqrt(2 * 1000))
    assert abs(draws.mean()) < 4 / 7 / np.sqrt(1000)


def test_permuted_images_have_no_likeness_on_average():
    images = 30
    deviations = torch.randn(images, 3, 40)
    same = deviations[:, :1].expand(-1, 3, -1)
    found = permuted_images(unit(same, 2), unit(same, 0).permute(2, 1, 0), seed=0, draws=200)
    assert abs(found["mean_r_image"].mean()) < 0.05
    assert abs(found["mean_r_channel"].mean()) < 0.02
    expected = np.sqrt(2 / np.pi / (images - 1))  # of a normal r with the variance 1 / (images - 1)
    assert found["mean_abs_r_channel"].mean() == pytest.approx(expected, rel=0.05)


def test_like_layers_lie_outside_of_chance_and_unlike_ones_within():
    common = torch.rand(30) + 0.05 * torch.randn(60, 1, 30)
    like, unlike = (
        of_maps(maps, 20).stages[0] for maps in (common + 0.02 * torch.randn(60, 3, 30), torch.randn(60, 3, 30))
    )
    null = like.readings.null
    assert null.chances["mean_r"].draws == 1000
    assert like.mean_r > null.largest_abs_r > null.chances["mean_r"].high > 0 > null.chances["mean_r"].low
    for name in ("mean_r_image", "mean_abs_r_channel", "cka"):
        assert like.readings.numbers[name].value > 2 * null.chances[name].high, name
    assert unlike.mean_r < 2 * unlike.readings.null.chances["mean_r"].high


def test_the_null_is_in_the_document():
    null = of_maps(torch.randn(20, 3, 8)).to_dict()["stages"][0]["null"]
    assert null["mean_r"].keys() == {"mean", "std", "interval", "draws"}
    assert {"mean_r_image", "mean_r_channel", "mean_abs_r_channel", "cka", "largest_abs_r"} <= null.keys()
    assert null["images"] == 20


def test_chance_does_not_depend_on_anything_but_the_seed():
    maps = torch.randn(10, 3, 8)
    first, again = (of_maps(maps).to_dict()["stages"][0]["null"] for _ in range(2))
    assert first == again


def test_autocast_around_it_changes_nothing():
    maps = torch.randn(6, 3, 40)
    expected = of_maps(maps).to_dict()
    with torch.autocast("cpu", torch.bfloat16):
        assert of_maps(maps).to_dict() == expected
