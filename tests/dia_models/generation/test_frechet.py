"""The Fréchet distance of sets of images, and the features in which it is measured."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import linalg

from dia_models import ModelInputError, load
from dia_models.data import open_data
from dia_models.generation.features import INCEPTION_FILE, feature_network
from dia_models.generation.frechet import Moments, frechet_distance, moments, score_images

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


def normal(mean, covariance):
    return Moments(2, np.array(mean, dtype=float), np.array(covariance, dtype=float))


def test_by_hand():
    """In one dimension it is (m1 - m2)² + (s1 - s2)²; where covariances commute, that along each axis."""
    assert frechet_distance(normal([1], [[4]]), normal([3], [[25]])) == pytest.approx(4 + 9)
    first, second = normal([0, 1], np.diag([1, 16])), normal([2, 1], np.diag([9, 4]))
    assert frechet_distance(first, second) == pytest.approx(4 + 4 + 4)


def test_it_is_the_formula_with_scipys_matrix_root():
    rng = np.random.default_rng(0)
    first, second = (moments(rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))) for _ in range(2))
    root = linalg.sqrtm(first.covariance @ second.covariance)
    gap = ((first.mean - second.mean) ** 2).sum()
    expected = gap + np.trace(first.covariance + second.covariance - 2 * root.real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


def test_the_same_images_have_no_distance_even_where_they_are_fewer_than_the_features():
    made = moments(np.random.default_rng(0).normal(size=(5, 20)))
    assert frechet_distance(made, made) == pytest.approx(0, abs=1e-9)
    flat = moments(np.ones((4, 3)))
    assert frechet_distance(flat, flat) == 0


def test_what_has_no_distance():
    with pytest.raises(ModelInputError, match="1 given; a Fréchet distance needs at least 2 on each side"):
        moments(np.ones((1, 3)))
    with pytest.raises(ModelInputError, match="not all finite"):
        moments(np.array([[1.0, np.nan], [0, 1]]))
    with pytest.raises(ValueError, match="no negative eigenvalue"):
        frechet_distance(normal([0, 0], np.diag([1, -1])), normal([0, 0], np.eye(2)))


@pytest.fixture(scope="module")
def digits():
    return open_data("digits", "train")


def test_features_are_what_the_classifier_sees(digits):
    network = feature_network("digits-resnet56-se")
    model = load("digits-resnet56-se")
    images = digits.take(torch.arange(300))
    features = torch.from_numpy(network.of(images, CPU))
    with torch.no_grad():
        from dia_models import Checkpoint

        logits = model(Checkpoint.read("digits-resnet56-se").info.preprocessing(images.pixels))
        torch.testing.assert_close(model.classifier(features), logits, rtol=1e-5, atol=1e-5)
    assert (network.name, len(network.sha256)) == ("digits-resnet56-se", 64)


def test_real_images_are_near_real_images_and_noise_is_not(digits):
    network = feature_network("digits-resnet56-se")
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    half, other = digits.take(order[:718]), digits.take(order[718:])
    noise = torch.randint(0, 256, half.pixels.shape, dtype=torch.uint8)
    near = score_images([half.pixels], other, network, CPU)
    far = score_images([noise], other, network, CPU)
    assert (near.images, near.reference_images, near.features) == (718, 719, "digits-resnet56-se")
    assert near.distance < 1.5
    assert far.distance > 50 * near.distance
    few = score_images([half.pixels[:100]], other, network, CPU)
    assert few.distance > 2 * near.distance  # biased where there are few images


def test_a_feature_network_that_is_none(tmp_path):
    with pytest.raises(ModelInputError, match="there is no file nothing.safetensors"):
        feature_network("nothing.safetensors")


def test_inception_without_its_package_or_weights(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ModelInputError, match=r"pip install 'dia-analysis\[generation\]'"):
        feature_network("inception")
    package, module = ModuleType("torch_fidelity"), ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = None
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelInputError, match="inception needs .*6726825d.pth; download it from https"):
        feature_network("inception")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / INCEPTION_FILE).write_bytes(b"something else")
    with pytest.raises(ModelInputError, match="damaged or another file; download it"):
        feature_network("inception")


def test_inception_sees_three_channels_of_bytes(monkeypatch, tmp_path):
    """With a stand-in for the network, whose weights have to be downloaded."""
    from dia_models.generation import features

    class StandIn(torch.nn.Module):
        def __init__(self, name, layers, feature_extractor_weights_path):
            super().__init__()
            assert layers == ["2048"]

        def forward(self, x):
            assert (x.dtype, x.shape[1:]) == (torch.uint8, (3, 8, 8))
            return (x.float().mean((2, 3)),)

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = StandIn
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(features, "_verify_sha256", lambda path: "0" * 64)
    pixels = torch.randint(0, 256, (4, 8, 8, 1), dtype=torch.uint8)
    seen = feature_network("inception")([pixels], CPU)
    assert seen.shape == (4, 3)
    assert np.allclose(seen[:, 0], pixels.float().mean((1, 2, 3)))
