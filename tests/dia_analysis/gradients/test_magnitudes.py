"""Magnitudes: by hand, against numpy, streamed, at the edges of what floats hold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dia_analysis import Magnitudes, MagnitudeStatistics
from dia_analysis.gradients.magnitudes import BINS, CHUNK

pytestmark = pytest.mark.numeric


def of(*parts):
    metric = MagnitudeStatistics()
    for part in parts:
        metric.update(torch.as_tensor(part))
    return Magnitudes(**metric.compute())


def test_by_hand():
    """|values| 1, 0, 2, 1: mean 1, deviations 0, 1, 1, 0, so the variance is 1/2; NaN and inf are only counted."""
    found = of([1.0, 0.0, -2.0], [float("nan"), -1.0, float("inf")])
    assert (found.count, found.zeros, found.nonfinite) == (4, 1, 2)
    assert (found.mean, found.variance, found.std) == (1.0, 0.5, 0.5**0.5)
    assert (found.smallest, found.largest) == (1.0, 2.0)
    assert [found.quantile(q) for q in (0.0, 0.25, 0.26, 0.75, 1.0)] == pytest.approx([0, 0, 1, 1, 2], rel=0.012)
    counts, edges = found.binned(1)
    assert counts.tolist() == [3]
    assert edges.tolist() == [0.0, 1.0]


def test_nothing_and_only_zeros():
    nothing = of(torch.empty(0))
    assert (nothing.count, nothing.mean, nothing.variance, nothing.quantile(0.5)) == (0, None, None, None)
    lost = of([float("nan")])
    assert (lost.count, lost.mean, lost.std, lost.nonfinite) == (0, None, None, 1)
    zeros = of([0.0, 0.0])
    assert (zeros.mean, zeros.quantile(0.5), zeros.smallest, zeros.zeros) == (0.0, 0.0, None, 2)
    assert [len(a) for a in zeros.binned(10)] == [0, 0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 400), st.floats(-40, 30), st.floats(0.01, 6))
def test_moments_are_exact_and_quantiles_within_what_is_stated(seed, count, decade, spread):
    values = 10.0 ** (decade + spread * np.random.default_rng(seed).normal(size=count))
    found = of(*np.array_split(values, 3))
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.variance == pytest.approx(values.var(), rel=1e-9)
    for q in (0.01, 0.25, 0.5, 0.9, 1.0):
        assert found.quantile(q) == pytest.approx(np.quantile(values, q, method="inverted_cdf"), rel=0.012)


def test_the_variance_of_nearly_equal_values_is_not_lost_in_their_square():
    values = torch.full((1000,), 1e-3, dtype=torch.float64)
    assert of(values, values).variance == pytest.approx(0.0, abs=1e-33)
    values[::2] += 1e-12
    assert of(values[:300], values[300:]).std == pytest.approx(5e-13, rel=1e-3)


@pytest.mark.parametrize("value", [5e-324, 1e-45, 3.4e38, 1.7e308])
def test_every_float_has_its_bin(value):
    found = of(torch.tensor([value, value], dtype=torch.float64))
    assert found.histogram.sum() == 2
    assert found.quantile(0.5) == pytest.approx(value, rel=0.012)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_are_computed_in_float64(dtype):
    values = torch.randn(500).to(dtype)
    assert of(values).mean == pytest.approx(values.double().abs().mean().item(), rel=1e-12)


def test_its_size_does_not_grow_and_chunks_do_not_matter():
    metric = MagnitudeStatistics()
    values = torch.randn(2, 3, CHUNK // 4)
    metric.update(values)
    shapes = {name: value.shape for name, value in metric.metric_state.items()}
    assert shapes["histogram"] == (BINS,)
    metric.update(values)
    assert {name: value.shape for name, value in metric.metric_state.items()} == shapes
    assert metric.compute()["mean"] == pytest.approx(values.double().abs().mean().item(), rel=1e-12)
    assert metric.compute()["count"] == 2 * values.numel()


def test_two_processes_states_join():
    values = torch.randn(1000).exp()
    values[3], values[4] = 0.0, torch.inf
    whole, first, second = (MagnitudeStatistics() for _ in range(3))
    whole.update(values)
    first.update(values[:10])
    second.update(values[10:])
    first.merge_state(second)
    a, b = Magnitudes(**whole.compute()), Magnitudes(**first.compute())
    assert (a.count, a.zeros, a.nonfinite, a.smallest, a.largest) == (b.count, 1, 1, b.smallest, b.largest)
    assert a.mean == pytest.approx(b.mean, rel=1e-13)
    assert a.variance == pytest.approx(b.variance, rel=1e-12)
    np.testing.assert_array_equal(a.histogram, b.histogram)
