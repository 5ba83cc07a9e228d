"""The command fold, as a user runs it."""

import json

import pytest

from dia_models import load
from tests.support.commands import failure, train

TINY = ("--model", "cifar_resnet11_se", "--data", "digits", "--images", "40", "--rounds", "6")


@pytest.mark.usefixtures("_undrawn")
def test_fold_writes_a_result_and_a_network(capsys, tmp_path):
    out = tmp_path / "folded"
    assert train("fold", *TINY, "--max-accuracy-drop", "1", "--out", out, "--json") == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document == json.loads((out / "folding.json").read_text())
    assert (document["schema"], document["folded"], document["judged_on"]) == ("dia.folding/1", 3, "test")
    assert (document["mean_images"], document["validation_images"], document["images"]) == (20, 20, 40)
    assert [point["folded"] for point in document["curve"]["chosen"]] == [0, 1, 2, 3]
    assert document["saved"]["parameters"] == 1
    assert [network["name"] for network in document["cost"]["models"]] == ["before", "folded", "every gate folded"]
    assert load(out / "model.safetensors").spec.name == "cifar_resnet11"
    assert "no validation images are known of this network" in printed.err


def test_an_interrupted_fold_leaves_nothing(capsys, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.runs.fold.costs", interrupted)
    out = tmp_path / "above" / "folded"
    assert train("fold", *TINY, "--max-accuracy-drop", "0", "--out", out) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_folded_is_said(capsys, tmp_path):
    plain = ["--model", "cifar_resnet11", "--data", "digits", "--images", "8", "--out", tmp_path / "out"]
    assert train("fold", *plain) == 1
    assert "--model: ResidualNetwork multiplies its features by no gate of channels" in failure(capsys, 1)
    assert not list(tmp_path.iterdir())
