"""From bytes to a network's input, and augmentation."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dia_models.data import Preprocessing, default_preprocessing, shift_and_mirror

pytestmark = pytest.mark.numeric


def random_pixels(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_channel_statistics_are_numpys(channels):
    pixels = random_pixels(7, 5, 6, channels) // torch.arange(1, channels + 1, dtype=torch.uint8)
    found, values = default_preprocessing("mine", pixels), pixels.numpy().reshape(-1, channels) / 255
    assert found.size == (5, 6)
    assert found.mean == pytest.approx(values.mean(0), abs=1e-4)
    assert found.std == pytest.approx(values.std(0), abs=1e-4)
    normalized = found(pixels)
    assert normalized.mean((0, 2, 3)).abs().max() < 1e-3
    assert (normalized.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3


def test_images_of_one_color_can_be_measured_and_normalized():
    for pixels in (torch.full((2, 4, 4, 3), 7, dtype=torch.uint8), torch.zeros(1, 1, 1, 1, dtype=torch.uint8)):
        assert default_preprocessing("mine", pixels)(pixels).isfinite().all()


@pytest.mark.parametrize("std", [(0.0,), (float("nan"),), (0.5, 0.5)])
def test_preprocessing_that_cannot_be_is_refused(std):
    with pytest.raises(ValidationError):
        Preprocessing(height=8, width=8, mean=(0.5,), std=std)


def test_preprocessing_is_the_plain_formula_and_channels_last():
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 1.5)
    pixels = random_pixels(4, 5, 6, 3)
    found = Preprocessing(height=5, width=6, mean=mean, std=std)(pixels)
    assert found.dtype == torch.float32
    assert found.shape == (4, 3, 5, 6)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for c in range(3):
        expected = (pixels[..., c].numpy() / 255 - mean[c]) / std[c]
        np.testing.assert_allclose(found[:, c].numpy(), expected, rtol=1e-5, atol=2e-6)


def slowly_shifted(pixels, padding, mirror, generator):
    count, height, width, _ = pixels.shape
    shifts = torch.randint(-padding, padding + 1, (count, 2), generator=generator).tolist()
    mirrored = (torch.rand(count, generator=generator) < 0.5).tolist() if mirror else [False] * count
    result = torch.zeros_like(pixels)
    for n, (down, right) in enumerate(shifts):
        for row in range(height):
            for column in range(width):
                y, x = row + down, (width - 1 - column if mirrored[n] else column) + right
                if 0 <= y < height and 0 <= x < width:
                    result[n, row, column] = pixels[n, y, x]
    return result


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 4, 9])
@pytest.mark.parametrize("shape", [(20, 5, 7, 3), (3, 8, 4, 1)])
def test_shifting_and_mirroring_equals_a_slow_loop(shape, padding, mirror):
    pixels = random_pixels(*shape)
    seeds = [torch.Generator().manual_seed(padding) for _ in range(2)]
    found = shift_and_mirror(pixels, padding, mirror, seeds[0])
    assert torch.equal(found, slowly_shifted(pixels, padding, mirror, seeds[1]))


def test_no_padding_and_no_mirror_change_nothing():
    pixels = random_pixels(6, 5, 4, 3)
    assert torch.equal(shift_and_mirror(pixels, 0, False, torch.Generator()), pixels)


def test_every_shift_occurs_and_half_of_the_images_are_mirrored():
    pixels = torch.zeros(2000, 7, 7, 1, dtype=torch.uint8)
    pixels[:, 3, 2:5, 0] = torch.tensor([1, 2, 3], dtype=torch.uint8)  # ahead 1 2 3, mirrored 3 2 1
    found = shift_and_mirror(pixels, 2, True, torch.Generator().manual_seed(0))[..., 0]
    centres = (found == 2).nonzero()[:, 1:].tolist()
    assert {tuple(c) for c in centres} == {(y, x) for y in range(1, 6) for x in range(1, 6)}
    assert len(centres) == 2000
    first = [(found[n] == 1).nonzero()[:, 1] for n in range(2000)]
    mirrored = sum(int(x) > c[1] for x, c in zip(first, centres, strict=True) if len(x))
    assert 900 < mirrored < 1100
