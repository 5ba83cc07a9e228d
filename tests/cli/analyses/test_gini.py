"""dia-analyze gini: what it prints, what it writes, how it fails."""

import json

import pytest

from tests.support.commands import LSTM, SE, analyze, failure, plain_checkpoint

pytestmark = pytest.mark.usefixtures("_shortened")


def test_two_networks_stand_side_by_side(tmp_path, capsys):
    out = tmp_path / "out"
    for name, model in (("dia", "cifar_resnet38_dia_lstm"), ("one", "cifar_resnet38_se")):
        plain_checkpoint(tmp_path / f"{name}.safetensors", model)
    ckpts = ("--ckpt", tmp_path / "dia.safetensors", "--ckpt", tmp_path / "one.safetensors")
    assert analyze("gini", *ckpts, "--data", "digits", "--images", 20, "--out", out) == 0
    text, err = capsys.readouterr()
    assert "dia on 20 images of digits: Gini importance, rows centred" in text
    head = next(line for line in text.splitlines() if line.split() == ["stage", "rows", "dia", "one"])
    document = json.loads((out / "gini.json").read_text())
    assert (document["checkpoint"], document["rows"]) == ("dia", "centred")
    assert [other["checkpoint"] for other in document["compared"]] == ["one"]
    vector = document["vector"]["stages"][0]
    centred = document["compared"][0]["stages"][2]
    assert shown(vector) in text[text.index(head) :].splitlines()[2]
    assert shown(centred) in text[text.index(head) :].splitlines()[5]
    untrained = document["untrained"]["vector"]["stages"][0]["r2"]
    row = next(line for line in text.splitlines() if "20 vector" in line)
    assert row.split()[6] == f"{sum(untrained) / 3:z.2f}"
    assert "Fig. 11: ResNet164 on CIFAR-100; no number is printed): inconclusive, as" in text
    names = {p.name for p in out.iterdir()}
    kinds = ("centred", "vector")
    arrays = {f"network{n}-{kind}-stage{s}.nc" for n in (1, 2) for kind in kinds for s in (1, 2, 3)}
    drawn = {f"{name}.{kind}" for name in ("fig11-importance", "fig12-structure") for kind in ("png", "pdf")}
    assert names == arrays | drawn | {"gini.json", "images.txt", "manifest.json"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert [network["checkpoint"] for network in manifest["networks"]] == ["dia", "one"]
    assert "\x1b" not in text + err


def shown(stage):
    """A stage's share beyond the two nearest layers and its interval, as the table has them."""
    if stage["beyond_two_nearest"] is None:
        return "-"
    return "{:.2f} [{:.2f}, {:.2f}]".format(stage["beyond_two_nearest"], *stage["beyond_two_nearest_interval"])


@pytest.mark.usefixtures("_undrawn")
def test_hidden_states_and_json(tmp_path, capsys):
    plain_checkpoint(tmp_path / "net.safetensors", "cifar_resnet20_dia_lstm")
    options = ("--ckpt", tmp_path / "net.safetensors", "--data", "digits", "--images", 4, "--json")
    assert analyze("gini", *options, "--hidden", "--out", tmp_path / "a") == 0
    hidden = json.loads(capsys.readouterr().out)
    assert analyze("gini", *options, "--points", "*attention.gate", "--out", tmp_path / "b") == 0
    assert json.loads(capsys.readouterr().out) == hidden
    assert (hidden["schema"], hidden["images"], hidden["seed"]) == ("dia.gini/1", 4, 0)
    assert hidden["stages"][0]["points"][1] == {"module": "stages.0.attention.gate", "call": 1}


@pytest.mark.usefixtures("_undrawn")
@pytest.mark.parametrize("rows", ["vector", "raw"])
def test_other_rows(rows, tmp_path, capsys):
    plain_checkpoint(tmp_path / "net.safetensors", "cifar_resnet20_se")
    options = ("--ckpt", tmp_path / "net.safetensors", "--data", "digits", "--images", 4, "--rows", rows)
    assert analyze("gini", *options, "--out", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert f"Gini importance, rows {rows}" in out
    assert "the principal components hold" in out
    assert "is not known to be trained" not in out  # one network is not compared
    document = json.loads((tmp_path / "out" / "gini.json").read_text())
    assert (document["rows"], "vector" in document) == (rows, rows == "raw")


@pytest.mark.usefixtures("_undrawn")
def test_networks_of_the_same_file_name_are_told_apart(tmp_path, capsys):
    for name in ("cifar_resnet20_se", "cifar_resnet20_eca"):
        plain_checkpoint(tmp_path / name / "model.safetensors", name)
    ckpts = [
        part
        for name in ("cifar_resnet20_se", "cifar_resnet20_eca")
        for part in ("--ckpt", tmp_path / name / "model.safetensors")
    ]
    assert analyze("gini", *ckpts, "--data", "digits", "--images", 4, "--out", tmp_path / "out") == 0
    assert "stage     rows  cifar_resnet20_se  cifar_resnet20_eca" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--ckpt", LSTM, "--ckpt", SE, "--hidden"),
            "--hidden: cifar_resnet56_se has no LSTM and so no hidden state; its attention is 18 x Squeeze",
        ),
        (("--ckpt", LSTM, "--hidden", "--points", "*gate"), "--hidden: --hidden and --points both say"),
        (("--ckpt", SE, "--points", "*.gat"), "--points: nothing matches '*.gat'"),
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
