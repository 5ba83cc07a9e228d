"""Debiased linear CKA: against the textbook's formula, without groups of images, by chance, and undefined."""

from itertools import permutations

import numpy as np
import pytest
import torch

from dia_analysis.statistics import cka as statistics
from dia_analysis.statistics.cka import alignment, cka, kernel_sums, permuted_std

pytestmark = pytest.mark.numeric


def hsic(k, m):
    """Song et al. 2012, equation 5, word for word."""
    n, ones = len(k), np.ones(len(k))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    whole = np.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (whole - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))


def textbook(x, y):
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def related(images=40, widths=(10, 7, 12), common=3):
    """Layers of unlike width that share some directions."""
    shared = torch.randn(images, common)
    return [shared @ torch.randn(common, width) + torch.randn(images, width) + 5 for width in widths]


@pytest.mark.parametrize(("widest", "exact"), [(2**12, 0), (0, 2**30), (0, 0)])  # by elements, images; in float32
def test_it_equals_the_textbook(widest, exact, monkeypatch):
    monkeypatch.setattr(statistics, "WIDEST", widest)
    monkeypatch.setattr(statistics, "EXACT", exact)
    layers = related()
    found = cka(layers)
    assert found[0, 1] > 0.3
    for i, one in enumerate(layers):
        for j, other in enumerate(layers):
            expected = textbook(one.double().numpy(), other.double().numpy())
            assert found[i, j] == pytest.approx(expected, abs=1e-12 if widest or exact else 1e-6)


def test_a_part_of_the_rows_at_a_time_changes_nothing(monkeypatch):
    monkeypatch.setattr(statistics, "WIDEST", 0)
    layers = related()
    whole = cka(layers)
    monkeypatch.setattr(statistics, "AT_ONCE", 3 * 40 * 7)
    np.testing.assert_allclose(cka(layers), whole, atol=1e-12)


@pytest.mark.parametrize("widest", [2**12, 0])
def test_without_each_group_it_is_that_of_the_others(widest, monkeypatch):
    monkeypatch.setattr(statistics, "WIDEST", widest)
    layers, sizes = related(), [3, 0, 7, 10, 20]
    found = alignment(kernel_sums(layers, sizes).hsic())
    owner = np.repeat(np.arange(5), sizes)
    for group in range(5):
        one, other = (layer.double().numpy()[owner != group] for layer in layers[:2])
        assert found[group + 1, 0, 1] == pytest.approx(textbook(one, other), abs=1e-12)


def test_it_is_blind_to_rotation_shift_and_scale():
    layer = torch.randn(20, 6, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    assert cka([layer, 3 * layer @ rotation + 7])[0, 1] == pytest.approx(1, abs=1e-12)


def test_unrelated_layers_have_none_on_average():
    """The biased CKA of 20 images in 200 dimensions would be above 0.9."""
    found = np.mean([cka([torch.randn(20, 200), torch.randn(20, 200)])[0, 1] for _ in range(50)])
    assert abs(found) < 4 * permuted_std(20) / np.sqrt(50)


def test_the_standard_deviation_by_chance_is_that_of_all_orders():
    one, other = (torch.randn(6, 3) for _ in range(2))
    values = [cka([one, other[list(order)]])[0, 1] for order in permutations(range(6))]
    assert np.mean(values) == pytest.approx(0, abs=1e-12)
    assert np.std(values) == pytest.approx(permuted_std(6), abs=1e-12)


def test_it_takes_four_images_and_maps_that_vary():
    assert np.isnan(cka([torch.randn(3, 5), torch.randn(3, 5)])).all()
    found = cka([torch.randn(9, 5), torch.ones(9, 5)])
    assert found[0, 0] == pytest.approx(1)
    assert np.isnan(found[1]).all()
    assert np.isnan(permuted_std(3))


def test_a_layer_whose_own_term_is_not_above_0_is_undefined():
    """One image differs from all others: its kernel has no likeness beyond the image itself."""
    layer = torch.zeros(6, 4)
    layer[0, 0] = 1
    kernel = (layer - layer.mean(0)).double().numpy()
    assert hsic(kernel @ kernel.T, kernel @ kernel.T) <= 1e-12
    assert np.isnan(cka([layer, torch.randn(6, 4)])[0, 1])
