"""Imputation: against the grad-cam package's direct solver, pictures that it must restore, and what it must not do."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, neighbors_weights
from scipy.sparse.linalg import spsolve

from dia_analysis.trust.impute import TOLERANCE, impute

pytestmark = pytest.mark.numeric


def filled(images, removed, noise=0.0, seed=0):
    return impute(images, removed, noise, torch.Generator().manual_seed(seed))


def pictures(height, width):
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.randn(3, 3, 5, 5, generator=generator), (height, width), mode="bicubic")
    return smooth + 0.3 * torch.randn(3, 3, height, width, generator=generator)


def holes(height, width, share, coarse):
    """Where random numbers, of a coarse grid or of every pixel, are below the share."""
    generator = torch.Generator().manual_seed(1)
    size = (5, 5) if coarse else (height, width)
    drawn = torch.rand(3, 1, *size, generator=generator)
    return F.interpolate(drawn, (height, width), mode="bilinear") < share


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 3)])
@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_equals_the_direct_solution_of_the_grad_cam_package(size, coarse, share):
    """To twice the stated error, because it is estimated."""
    images, removed = pictures(*size), holes(*size, share, coarse)
    removed[:, :, 0, 0] = False
    found = filled(images, removed)
    for image, mask, mine in zip(images, removed, found, strict=True):
        if mask.any():
            system = NoisyLinearImputer.setup_sparse_system((~mask[0]).numpy(), image.numpy(), neighbors_weights)
            expected = spsolve(system[0].tocsc(), system[1])
            np.testing.assert_allclose(mine[:, mask[0]].T, expected, atol=2 * TOLERANCE)
            assert torch.equal(mine[:, ~mask[0]], image[:, ~mask[0]])


def test_one_pixel_by_hand():
    """Four direct neighbours of 1/6 with 6, 12, 0 and 0, four diagonal ones of 1/12 with 12, 0, 0 and 0: 1 + 2 + 1."""
    image = torch.tensor([[12.0, 6, 0], [12, 99, 0], [0, 0, 0]])[None, None]
    middle = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    middle[..., 1, 1] = True
    assert filled(image, middle)[0, 0, 1, 1].item() == pytest.approx(4, abs=TOLERANCE)
    corner = middle.roll((1, 1), (2, 3))  # of its neighbours three are left: 99 of 1/12, 0 and 0 of 1/6
    assert filled(image, corner)[0, 0, 2, 2].item() == pytest.approx(99 / 5, abs=TOLERANCE)


def test_ramps_are_restored_away_from_the_edges():
    y, x = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 56), indexing="ij")
    ramps = torch.stack([x, y, 2 * x - y, 1 - x - y])[None]
    removed = torch.zeros(1, 1, 40, 56, dtype=torch.bool)
    removed[..., 4:36, 4:52] = True
    torch.testing.assert_close(filled(ramps, removed), ramps, atol=2 * TOLERANCE, rtol=0)


def test_noise_is_on_removed_pixels_only_and_depends_on_the_seed():
    images, removed = pictures(32, 32), holes(32, 32, 0.5, coarse=True)
    plain, first, again, other = (filled(images, removed, *given) for given in ((0.0, 0), (0.1, 1), (0.1, 1), (0.1, 2)))
    kept = ~removed.expand_as(images)
    assert torch.equal(first[kept], images[kept])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first - plain)[~kept].std().item() == pytest.approx(0.1, rel=0.05)


def test_an_image_is_the_same_in_a_batch_and_alone_and_what_was_removed_does_not_matter():
    images, removed = pictures(40, 40), holes(40, 40, 0.6, coarse=True)
    found = filled(images, removed)
    changed = torch.where(removed, 1e6, images)
    torch.testing.assert_close(filled(changed, removed), found)
    torch.testing.assert_close(filled(images[1:2], removed[1:2]), found[1:2], atol=2 * TOLERANCE, rtol=0)


def test_nothing_and_everything_removed():
    images = pictures(8, 8)
    none = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    assert torch.equal(filled(images, none, 0.1), images)
    assert not filled(images, ~none).any()
