"""The commands points and attention, as a user runs them."""

import json

import numpy as np
import pytest

from tests.support.commands import LSTM, analyze, failure, images


def test_points_has_a_row_for_every_call_and_its_stage(capsys):
    assert analyze("points", "--ckpt", LSTM, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dia.points/1"
    assert [(p["name"], p["call"], p["stage"]) for p in document["points"]] == [
        (f"stages.{stage}.attention.gate", call, stage + 1) for stage in range(3) for call in range(6)
    ]
    assert document["points"][0] == {
        "name": "stages.0.attention.gate",
        "call": 0,
        "kind": "channel",
        "shape": [64],
        "stage": 1,
        "usable": True,
        "reason": "",
    }


def test_a_network_without_attention_has_an_empty_list_and_a_sentence(capsys):
    assert analyze("points", "--model", "timm:test_resnet", "--json") == 0
    assert json.loads(capsys.readouterr().out)["points"] == []
    assert analyze("points", "--model", "timm:test_resnet") == 0
    assert "test_resnet uses no attention; --points 'features:PATTERN' takes" in capsys.readouterr().out
    assert analyze("points", "--model", "timm:test_resnet", "--points", "features:layer?", "--json") == 0
    found = json.loads(capsys.readouterr().out)["points"]
    assert [(p["name"], p["kind"], p["usable"]) for p in found] == [
        (f"layer{i}", "features", True) for i in (1, 2, 3, 4)
    ]


def test_attention_writes_arrays_pictures_and_a_page(capsys, tmp_path):
    out = tmp_path / "maps"
    given = [
        "--model",
        "timm:test_vit",
        images(tmp_path, 2),
        "--query",
        "mean",
        "--heads",
        "0",
        "--rollout",
        "--out",
        out,
    ]
    assert analyze("attention", *given, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((out / "attention.json").read_text())
    assert [image["path"] for image in document["images"]] == ["0.png", "1.png"]
    *layers, rolled = document["images"][1]["layers"]
    assert rolled["name"] == "rollout"
    for entry in layers:
        weights = np.load(out / entry["array"])
        assert list(weights.shape) == entry["shape"]
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        assert (out / entry["picture"]).exists()
    assert (out / "index.html").read_text().count("<figure>") == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--query", "middle"], "--query: 'middle' given; accepted: class, mean, or X,Y in pixels"),
        (["--heads", "first"], "--heads: 'first' given; accepted: numbers from 0, such as 0,2"),
        (["--layers", "layer9"], "nothing matches 'layer9'"),
        (["--rollout"], "it takes layers of one number of tokens"),
        (["--ckpt", "digits-resnet56-se"], "2 networks given; this command takes one"),
    ],
)
def test_what_attention_refuses(capsys, tmp_path, given, message):
    assert message in failure(
        capsys, analyze("attention", "--ckpt", LSTM, "--images", 1, *given, "--out", tmp_path / "o")
    )
    assert not (tmp_path / "o").exists()
