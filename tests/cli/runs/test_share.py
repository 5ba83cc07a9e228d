"""The command share, and fine-tuning of what it writes, as a user runs them."""

import json

import pytest
import torch

from dia_models import Checkpoint, create_model, save_checkpoint
from dia_models.checkpoints.checkpoint import CheckpointInfo
from dia_models.data import Preprocessing
from tests.support.commands import failure, train


@pytest.fixture
def checkpoint(tmp_path):
    model = create_model("cifar_resnet20_se", num_classes=10, in_channels=1, reduction=8)
    info = CheckpointInfo(
        model=model.spec,
        data="digits",
        classes=tuple(map(str, range(10))),
        preprocessing=Preprocessing(height=8, width=8, mean=(0.3,), std=(0.4,)),
        recipe={"validation": 0.1},
        metrics={"test_accuracy": 0.1},
    )
    save_checkpoint(tmp_path / "own.safetensors", model, info)
    return tmp_path / "own.safetensors"


def test_share_writes_a_network_that_fit_starts_from(checkpoint, capsys, tmp_path):
    out = tmp_path / "shared.safetensors"
    assert train("share", "--ckpt", checkpoint, "--images", "30", "--out", out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["images"]) == ("dia.share/1", 30)
    assert [row["network"] for row in document["accuracies"]] == ["individual", "shared, averaged", "shared, fitted"]
    assert [len(stage["modules"]) for stage in document["stages"]] == [2, 2, 2]
    info = Checkpoint.read(out).info
    assert (info.model.name, info.metrics) == ("cifar_resnet20_dia_se", {})
    few = ["--set", "training_images=64", "--set", "precision=float32"]
    assert train("fit", "--from", out, *few, "--set", "epochs=1", "--out", tmp_path / "run") == 0
    tuned = Checkpoint.read(tmp_path / "run" / "model.safetensors").info
    assert (tuned.model, tuned.data, tuned.recipe["name"]) == (info.model, "digits", "fine_tune")
    assert tuned.recipe["start_from"] == Checkpoint.read(out).sha256


def test_share_can_fine_tune_both(checkpoint, capsys, tmp_path, monkeypatch):
    asked = []

    def fit(config, directory, *_, **__):
        asked.append((config.model, config.recipe.epochs, config.options))
        directory.mkdir()
        start = Checkpoint.read(config.start_from)
        save_checkpoint(directory / "model.safetensors", start.build(), start.info)

    monkeypatch.setattr("cli.runs.share.fit", fit)
    given = ("--ckpt", checkpoint, "--images", "20", "--epochs", "3", "--out", tmp_path / "shared.safetensors")
    assert train("share", *given) == 0
    assert asked == [("cifar_resnet20_se", 3, {"reduction": 8}), ("cifar_resnet20_dia_se", 3, {"reduction": 8})]
    assert "shared, fine-tuned 3" in capsys.readouterr().out


def test_a_network_from_elsewhere_keeps_its_names(capsys, tmp_path):
    out = tmp_path / "shared.safetensors"
    (tmp_path / "net.py").write_text(NET)
    given = ("--model", f"{tmp_path / 'net.py'}:net", "--image-size", "8", "--channels", "3", "--data", "digits")
    assert train("share", *given, "--images", "20", "--out", out) == 0
    from safetensors.torch import load_file

    weights = load_file(out)
    assert torch.equal(weights["1.fc.weight"], weights["2.fc.weight"])
    capsys.readouterr()
    assert train("share", *given, "--epochs", "1", "--out", tmp_path / "other") == 1
    assert "only networks that dia-train fit wrote are trained here" in failure(capsys, 1)


NET = """
from torch import nn


class SE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return x * self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), SE(), SE(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""


def test_nothing_to_share_leaves_nothing(capsys, tmp_path):
    given = ("--model", "cifar_resnet11", "--data", "digits", "--images", "20", "--out", tmp_path / "x")
    assert train("share", *given) == 1
    assert "there is nothing to share" in failure(capsys, 1)
    assert not list(tmp_path.iterdir())
