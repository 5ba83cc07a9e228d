"""Diffusion: images with noise of any strength (the VP-SDE of Song et al. 2021), and the way back to images.

At time t, from 0 to 1, an image x0 with values from -1 to 1 has become alpha(t) x0 + sigma(t) noise.
"""

from collections.abc import Callable
from math import expm1

import torch
from jaxtyping import Float
from torch import Tensor

BETA_FIRST, BETA_LAST = 0.1, 20.0
FIRST_TIME = 1e-4  # where sampling ends: at 0 there is no noise to predict
TIME_FACTOR = 999  # what networks see of a time

Images = Float[Tensor, "image channel height width"]
Times = Float[Tensor, "image"]
Predict = Callable[[Images, Times], Images]


def log_alpha(times: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The logarithm of what is left of the image: minus half the integral of beta, which rises in a line."""
    return -(times**2) * (BETA_LAST - BETA_FIRST) / 4 - times * BETA_FIRST / 2


def sigma(times: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The noise's standard deviation; alpha² + sigma² = 1."""
    return torch.sqrt(-torch.expm1(2 * log_alpha(times)))


def add_noise(images: Images, noise: Images, times: Times) -> Images:
    """Images as they are at their times."""
    weights = [factor[:, None, None, None] for factor in (log_alpha(times).exp(), sigma(times))]
    return weights[0] * images + weights[1] * noise


def sampling_times(steps: int) -> Float[Tensor, "time"]:
    """`steps` + 1 times from 1 down to nearly 0, at equal distances in lambda = log(alpha / sigma), in float64."""
    ends = _lambda(torch.tensor([1.0, FIRST_TIME], dtype=torch.float64)).tolist()
    times = _time_of(torch.linspace(ends[0], ends[1], steps + 1, dtype=torch.float64))
    times[0], times[-1] = 1.0, FIRST_TIME
    return times


def denoise(predict: Predict, noise: Images, steps: int) -> Images:
    """Turn noise into images: DPM-Solver++(2M), algorithm 2 of Lu et al. 2022 (arXiv:2211.01095).

    `predict` gives the noise in images at times. Nothing is random: the same noise becomes the same images. The first
    step is of first order, the others extrapolate from the two latest predictions of the image.
    """
    times = sampling_times(steps)
    lambdas, alphas, sigmas = _lambda(times).tolist(), log_alpha(times).exp().tolist(), sigma(times).tolist()
    images, before = noise, None
    for i in range(1, steps + 1):
        at = noise.new_full((len(noise),), float(times[i - 1]))
        clean = (images - sigmas[i - 1] * predict(images, at)) / alphas[i - 1]
        step = lambdas[i] - lambdas[i - 1]
        towards = clean
        if before is not None:
            ratio = (lambdas[i - 1] - lambdas[i - 2]) / step
            towards = clean + (clean - before) / (2 * ratio)
        images = sigmas[i] / sigmas[i - 1] * images - alphas[i] * expm1(-step) * towards
        before = clean
    return images


def _lambda(times: Float[Tensor, "time"]) -> Float[Tensor, "time"]:
    return log_alpha(times) - sigma(times).log()


def _time_of(lambdas: Float[Tensor, "time"]) -> Float[Tensor, "time"]:
    """The inverse of `_lambda`: with alpha² + sigma² = 1, -2 log alpha = log(1 + exp(-2 lambda)), a quadratic in t."""
    exponent = torch.logaddexp(-2 * lambdas, torch.zeros_like(lambdas))
    slope = BETA_LAST - BETA_FIRST
    return 2 * exponent / (torch.sqrt(BETA_FIRST**2 + 2 * slope * exponent) + BETA_FIRST)
