"""dia-analyze gini: what it prints, what it writes, how it fails."""

import json

import pytest
from test_cli import LSTM, SE, analyze, failure, plain_checkpoint


def test_two_networks_stand_side_by_side(tmp_path, capsys):
    out = tmp_path / "out"
    assert analyze("gini", "--ckpt", LSTM, "--ckpt", SE, "--images", 8, "--out", out) == 0
    text, err = capsys.readouterr()
    assert f"{LSTM} on 8 images of digits: Gini importance, rows are (image, channel) pairs" in text
    head = next(line for line in text.splitlines() if LSTM in line and SE in line)
    assert head.split() == ["stage", LSTM, SE, "if", "flat"]
    document = json.loads((out / "gini.json").read_text())
    assert document["checkpoint"] == LSTM
    assert [other["checkpoint"] for other in document["compared"]] == [SE]
    shares = [d["stages"][0]["beyond_two_nearest"] for d in (document, *document["compared"])]
    first = text[text.index(head) :].splitlines()[1]
    assert all(f"{share:.3f}" in first for share in shares)
    names = {p.name for p in out.iterdir()}
    arrays = {f"network{n}-stage{s}.nc" for n in (1, 2) for s in (1, 2, 3)}
    drawn = {f"{name}.{kind}" for name in ("fig11-importance", "fig12-structure") for kind in ("png", "pdf")}
    assert names == arrays | drawn | {"gini.json", "images.txt", "manifest.json"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert [network["checkpoint"] for network in manifest["networks"]] == [LSTM, SE]
    assert "\x1b" not in text + err


def test_hidden_states_and_json(tmp_path, capsys):
    options = ("--ckpt", LSTM, "--images", 4, "--json")
    assert analyze("gini", *options, "--hidden", "--out", tmp_path / "a") == 0
    hidden = json.loads(capsys.readouterr().out)
    assert analyze("gini", *options, "--points", "*attention.gate", "--out", tmp_path / "b") == 0
    assert json.loads(capsys.readouterr().out) == hidden
    assert (hidden["schema"], hidden["images"], hidden["seed"]) == ("dia.gini/1", 4, 0)
    assert hidden["stages"][0]["points"][5] == {"module": "stages.0.attention.gate", "call": 5}


def test_whole_vectors(tmp_path, capsys):
    assert analyze("gini", "--ckpt", SE, "--images", 12, "--vector", "--out", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "rows are images, whole vectors" in out
    assert "the principal components hold" in out


def test_networks_of_the_same_file_name_are_told_apart(tmp_path, capsys):
    for name in ("cifar_resnet20_se", "cifar_resnet20_eca"):
        plain_checkpoint(tmp_path / name / "model.safetensors", name)
    ckpts = [
        part
        for name in ("cifar_resnet20_se", "cifar_resnet20_eca")
        for part in ("--ckpt", tmp_path / name / "model.safetensors")
    ]
    assert analyze("gini", *ckpts, "--data", "digits", "--images", 4, "--out", tmp_path / "out") == 0
    assert "cifar_resnet20_se  cifar_resnet20_eca  if flat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--ckpt", LSTM, "--ckpt", SE, "--hidden"),
            f"--hidden: {SE} holds cifar_resnet56_se, which has no LSTM and so no hidden state; its attention is "
            "18 x SqueezeExcitation; leave --hidden out",
        ),
        (("--ckpt", LSTM, "--hidden", "--points", "*gate"), "--hidden: --hidden and --points both say"),
        (("--ckpt", SE, "--points", "*.gat"), "--points: no module matches '*.gat'"),
        (("--ckpt", "none"), "--ckpt: unknown checkpoint 'none'"),
    ],
)
def test_bad_input_is_one_line_that_names_the_option(options, message, tmp_path, capsys):
    assert message in failure(capsys, analyze("gini", *options, "--images", 4, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_network_without_attention_has_no_hidden_state(tmp_path, capsys):
    plain_checkpoint(tmp_path / "net.safetensors", "cifar_resnet11")
    options = ("--ckpt", tmp_path / "net.safetensors", "--data", "digits", "--hidden")
    assert "it has no attention at all" in failure(capsys, analyze("gini", *options, "--out", tmp_path / "out"))


def test_a_stage_of_one_layer_is_said_and_nothing_is_drawn(tmp_path, capsys):
    plain_checkpoint(tmp_path / "one.safetensors", "cifar_resnet11_se")
    options = ("--ckpt", tmp_path / "one.safetensors", "--data", "digits", "--images", 4, "--out", tmp_path / "out")
    assert analyze("gini", *options) == 0
    assert "so no forest was grown" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("fig11*"))
