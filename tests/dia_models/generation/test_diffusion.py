"""Diffusion: the schedule, and a sampler that is right where the answer is known."""

from itertools import pairwise

import pytest
import torch

from dia_models.generation.diffusion import add_noise, denoise, log_alpha, sampling_times, sigma

pytestmark = pytest.mark.numeric


def test_the_schedule_is_the_integral_of_beta():
    times = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    beta = 0.1 + times * (20 - 0.1)
    integral = torch.cumulative_trapezoid(beta, times)
    torch.testing.assert_close(log_alpha(times)[1:], -integral / 2, rtol=0, atol=1e-8)
    torch.testing.assert_close(log_alpha(times).exp() ** 2 + sigma(times) ** 2, torch.ones_like(times))
    assert float(log_alpha(times[-1]).exp()) == pytest.approx(0.00657, abs=1e-5)  # hardly anything is left


def test_noised_images_by_hand():
    times = torch.tensor([0.0, 1.0])
    images, noise = torch.ones(2, 1, 1, 1), 3 * torch.ones(2, 1, 1, 1)
    first, last = add_noise(images, noise, times).flatten().tolist()
    assert first == 1
    assert last == pytest.approx(0.00657 + 3 * (1 - 0.00657**2) ** 0.5, abs=1e-4)


def test_sampling_times_are_at_equal_distances_in_the_logarithm_of_the_signals_share():
    times = sampling_times(20)
    assert (times[0], times[-1]) == (1, 1e-4)
    gaps = (log_alpha(times) - sigma(times).log()).diff()
    torch.testing.assert_close(gaps, gaps[:1].expand(20), rtol=1e-9, atol=0)


def gaussian(mean, std):
    """The best prediction of the noise in samples of a normal distribution."""

    def predict(x, times):
        alpha, noise = (f(times)[:, None, None, None] for f in (lambda t: log_alpha(t).exp(), sigma))
        return noise * (x - alpha * mean) / (alpha**2 * std**2 + noise**2)

    return predict


@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.5), (0.0, 1.0), (-0.5, 0.05)])
def test_noise_becomes_samples_of_a_normal_distribution_with_an_error_of_second_order(mean, std):
    """The probability flow moves x so that (x - alpha mean) / sqrt(alpha² std² + sigma²) stays as it is."""
    noise = torch.randn(8, 1, 4, 4, dtype=torch.float64)
    ends = torch.tensor([1.0, 1e-4], dtype=torch.float64)
    alpha, spread = log_alpha(ends).exp(), torch.sqrt(log_alpha(ends).exp() ** 2 * std**2 + sigma(ends) ** 2)
    exact = alpha[1] * mean + spread[1] * (noise - alpha[0] * mean) / spread[0]
    errors = [float((denoise(gaussian(mean, std), noise, steps) - exact).abs().max()) for steps in (40, 80, 160)]
    assert errors[0] < 0.02
    assert all(3 < coarse / fine < 5 for coarse, fine in pairwise(errors))


def test_one_step_is_of_first_order():
    noise = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    clean = denoise(lambda x, times: x, noise, 1)  # all of it is noise
    ends = torch.tensor([1.0, 1e-4], dtype=torch.float64)
    alpha, rest = log_alpha(ends).exp(), sigma(ends)
    image = (1 - rest[0]) / alpha[0]
    assert float(clean) == pytest.approx(float(alpha[1] * image + rest[1]), rel=1e-9)
