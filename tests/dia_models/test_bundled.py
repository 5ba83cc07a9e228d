"""The checkpoints that come with the package: small, listed with their hashes, and as good as they say."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dia_analysis import measure_correlation
from dia_models import Checkpoint, list_checkpoints
from dia_models.classification.evaluation import evaluate
from dia_models.data import evenly_spaced, open_data

pytestmark = pytest.mark.numeric

MODELS = (Path(__file__).parents[2] / "MODELS.md").read_text(encoding="utf-8")
CPU = torch.device("cpu")


def accuracy(checkpoint, source, count):
    info, chosen = checkpoint.info, evenly_spaced(count, len(source))
    batches = source.batches(chosen, 100, info.preprocessing.size, info.model.in_channels)
    return evaluate(checkpoint.build(), batches, info.preprocessing, len(info.classes), CPU).accuracy


def test_all_of_them_together_are_small():
    folder = Path(__file__).parents[2] / "dia_models" / "bundled"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40e6


@pytest.mark.parametrize("name", list_checkpoints())
def test_each_is_listed_with_its_hash_accuracy_and_command(name):
    (row,) = re.findall(rf"^\| `{name}` \|.*$", MODELS, re.MULTILINE)
    checkpoint = Checkpoint.read(name)
    assert checkpoint.sha256 in row
    assert f"{checkpoint.info.metrics['test_accuracy']:.2%}" in row
    assert f"--model {checkpoint.info.model.name} --data {checkpoint.info.data}" in row


@pytest.mark.parametrize("name", [name for name in list_checkpoints() if name.startswith("digits")])
def test_digits_are_classified_as_well_as_the_header_says(name):
    checkpoint = Checkpoint.read(name)
    found = accuracy(checkpoint, open_data("digits", "test"), 360)
    assert found == pytest.approx(checkpoint.info.metrics["test_accuracy"], abs=2.5 / 360)  # rounding may turn two
    assert found > 0.96


@pytest.mark.parametrize("name", [name for name in list_checkpoints() if name.startswith("cifar10-")])
def test_real_images_are_classified_as_well_as_the_header_says(name, cifar10_dir):
    checkpoint = Checkpoint.read(name)
    assert checkpoint.info.metrics["test_accuracy"] > 0.88
    found = accuracy(checkpoint, open_data("cifar10", "test", cifar10_dir), 1000)
    assert found == pytest.approx(checkpoint.info.metrics["test_accuracy"], abs=0.03)


@pytest.mark.parametrize("name", [name for name in list_checkpoints() if name.startswith("cifar100-")])
def test_real_images_of_a_hundred_classes_too(name, cifar10_dir):
    if not (cifar10_dir / "cifar100").is_dir():
        pytest.skip(f"real CIFAR-100 is not in {cifar10_dir}; set DIA_DATA_DIR to a folder that holds it")
    checkpoint = Checkpoint.read(name)
    assert checkpoint.info.metrics["test_accuracy"] > 0.695
    found = accuracy(checkpoint, open_data("cifar100", "test", cifar10_dir), 300)
    assert found == pytest.approx(checkpoint.info.metrics["test_accuracy"], abs=0.1)  # 3.8 standard errors


@pytest.mark.parametrize("name", [name for name in list_checkpoints() if name.startswith("xray")])
def test_chest_xrays_are_classified_as_well_as_the_header_says(name, chest_xray_dir):
    checkpoint = Checkpoint.read(name)
    found = accuracy(checkpoint, open_data("chest-xray", "test", chest_xray_dir), 208)
    assert found == pytest.approx(checkpoint.info.metrics["test_accuracy"], abs=0.06)


def test_correlation_on_real_images_equals_a_numpy_loop(cifar10_dir):
    from dia_analysis import capture

    checkpoint, source = Checkpoint.read("cifar10-resnet29-se"), open_data("cifar10", "test", cifar10_dir)
    model, info = checkpoint.build(), checkpoint.info
    inputs = [info.preprocessing(b.pixels) for b in source.batches(evenly_spaced(20, 10_000), 8, (32, 32), 3)]
    result = measure_correlation(model, inputs)
    with capture(model) as records, torch.no_grad():
        model(torch.cat(inputs))
    maps = [value.double().numpy() for value in records.values()]
    for number, stage in enumerate(result.stages):
        layers = maps[3 * number : 3 * number + 3]
        expected = np.mean([np.corrcoef([layer[image] for layer in layers]) for image in range(20)], 0)
        np.testing.assert_allclose(stage.matrix, expected, atol=1e-6)
