"""The commands that compare networks: gradients and cost, and the epochs that training keeps for them."""

import json
from pathlib import Path

import pytest
import torch
from test_cli import analyze, failure, images, plain_checkpoint, train

from cli.networks import candidates, in_even_batches, run_files
from dia_analysis import network_gradients
from dia_models import Checkpoint, ModelSpec, create_model
from dia_models.data import Preprocessing, evenly_spaced, open_data, suited
from dia_models.models import without_attention

SE, LSTM = "digits-resnet56-se", "digits-resnet56-dia-lstm"
SMALL = ("--model", "cifar_resnet20", "--model", "cifar_resnet20_dia_lstm", "--set", "skip=false")


def gradients(out, *options):
    return analyze("gradients", *options, "--json", "--out", out)


def test_gradients_of_fresh_networks_beside_a_checkpoint(tmp_path, capsys):
    assert analyze("gradients", "--ckpt", SE, *SMALL, "--images", 30, "--per-block", "--out", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert "30 images of digits in batches of 30" in out
    assert f"{SE}: the gradient" in out
    assert "  cifar_resnet20_dia_lstm (without skip connections): mean x " in out
    assert "\x1b" not in out + err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    drawn = {f"fig13-{figure}.{kind}" for figure in ("distribution", "blocks") for kind in ("png", "pdf")}
    arrays = {f"network{number}.nc" for number in (1, 2, 3)}
    assert names == drawn | arrays | {"gradients.json", "images.txt", "manifest.json"}
    document = json.loads((tmp_path / "out" / "gradients.json").read_text())
    assert [model["name"] for model in document["models"]] == [SE, "cifar_resnet20", "cifar_resnet20_dia_lstm"]
    first, _, third = document["models"]
    assert first["provenance"]["checkpoint_sha256"] == Checkpoint.read(SE).sha256
    assert third["provenance"]["checkpoint"] is None
    assert third["made_from"]["options"] == {"skip": False}
    (pair,) = document["dia_lstm_beside_plain"]
    ratio = third["stages"][0]["mean_abs"] / document["models"][1]["stages"][0]["mean_abs"]
    assert pair["mean_ratios"][0] == pytest.approx(ratio)
    assert pair["skip"] is False


def test_gradients_are_those_of_the_library_on_the_same_images(tmp_path, capsys):
    assert gradients(tmp_path / "a", "--model", "cifar_resnet20_se", "--images", 30, "-b", 20, "--seed", 5) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    source = open_data("digits", "test")
    chosen = evenly_spaced(30, 360)
    lines = (tmp_path / "a" / "images.txt").read_text().split()
    order = [int(line.removeprefix("#")) for line in lines]
    assert sorted(order) == chosen
    preprocessing = suited("digits", source.pixels[order])
    torch.manual_seed(5)
    network = create_model("cifar_resnet20_se", in_channels=1)
    batches = [(preprocessing(source.pixels[half]), source.labels[half]) for half in (order[:15], order[15:])]
    expected = network_gradients(network, batches)
    assert (model["images"], model["batch_size"], model["epoch"]) == (30, 15, None)
    found = [stage["mean_abs"] for stage in model["stages"]]
    assert found == pytest.approx([stage.magnitudes.mean for stage in expected.stages], rel=1e-4)
    assert model["loss"] == pytest.approx(expected.loss, rel=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    options = ("--set", "epochs=3", "--set", "batch_size=512", "--set", "augment=none", "--keep-every", 2)
    assert train("fit", "--model", "cifar_resnet11_dia_lstm", "--data", "digits", *options, "--out", folder) == 0
    return folder


def test_training_keeps_the_start_every_second_epoch_and_the_last(run):
    kept = sorted(path.name for path in run.glob("epoch-*"))
    assert kept == [f"epoch-{epoch:04d}.safetensors" for epoch in (0, 2, 3)]
    assert [Checkpoint.read(run / name).info.epoch for name in kept] == [0, 2, 3]
    start, last, final = (Checkpoint.read(run / name) for name in (kept[0], kept[2], "model.safetensors"))
    assert all(torch.equal(last.weights[name], final.weights[name]) for name in final.weights)
    assert not torch.equal(start.weights["classifier.weight"], final.weights["classifier.weight"])


def test_gradients_along_training(run, tmp_path, capsys):
    assert gradients(tmp_path / "out", "--run", run, "--every-epoch", "--images", 20) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [(model["name"], model["epoch"]) for model in models] == [("tiny", 0), ("tiny", 2), ("tiny", 3)]
    assert len({model["stages"][0]["mean_abs"] for model in models}) == 3
    assert (tmp_path / "out" / "fig13-training.png").exists()
    (final,) = candidates((), (), (), run_files([run], every_epoch=False))
    assert (final.name, final.source) == ("tiny", str(run / "model.safetensors"))


def test_a_run_cannot_be_resumed_with_other_epochs_to_keep(run, capsys):
    message = failure(capsys, train("fit", "--resume", "--out", run, "--keep-every", 1))
    assert "--resume: the run was started with keep_every 2, not 1" in message


def labelled_folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    images(tmp_path, 4).rename(folder / "no")
    images(tmp_path, 3).rename(folder / "yes")
    return f"folder:{folder}"


def test_a_folder_of_classes(tmp_path, capsys):
    data = labelled_folder(tmp_path)
    options = ("--model", "cifar_resnet11", "--data", data)
    assert "--image-size: the images have several sizes" in failure(capsys, gradients(tmp_path / "out", *options))
    assert gradients(tmp_path / "out", *options, "--image-size", 24) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["images"], model["made_from"]["num_classes"]) == (7, 2)
    assert model["stages"][0]["shape"] == [64, 24, 24]
    path = tmp_path / "net.safetensors"
    plain_checkpoint(path)
    assert gradients(tmp_path / "two", "--ckpt", path, "--model", "cifar_resnet11", "--data", data) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["stages"][0]["shape"] for model in models] == [[64, 16, 16]] * 2


def test_files_and_folders_of_one_name_are_told_apart_by_their_paths():
    assert [c.name for c in candidates(["a/net.safetensors", "b/other.safetensors"], [], [])] == ["net", "other"]
    found = candidates(["a/net.safetensors", "b/net.safetensors"], ["cifar_resnet20"], ["skip=false"])
    assert [c.name for c in found] == ["a/net", "b/net", "cifar_resnet20"]
    runs = [[Path("/a/run/epoch-0000.safetensors")], [Path("/b/run/epoch-0000.safetensors")]]
    assert [c.name for c in candidates([], [], [], runs)] == ["a/run", "b/run"]


def test_batches_are_of_even_size():
    assert [in_even_batches(count, 128) for count in (1, 128, 129, 360, 512, 1000)] == [1, 128, 65, 120, 128, 125]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--model: say which networks to compare"),
        (("--ckpt", SE, "--set", "skip=false"), "--set: these are options of networks made by --model"),
        (("--model", "cifar_resnet21"), "--model: cifar_resnet21: the depth must be 9n + 2"),
        (("--model", "cifar_resnet20", "--set", "reduction=4"), "--set: unknown option 'reduction'"),
        (("--model", "cifar_resnet20", "--set", "skip"), "--set: 'skip' is not of the form key=value"),
        (("--ckpt", SE, "--every-epoch"), "--every-epoch: say of which run: --run DIR"),
        (("--run", "/nonexistent", "--every-epoch"), "--run: /nonexistent keeps no epochs"),
        (("--run", "/nonexistent"), "--ckpt: there is no file /nonexistent/model.safetensors"),
        (("--ckpt", SE, "--images", 361), "--images: 361 images asked for, digits has 360"),
        (("--ckpt", SE, "--images", 1), "--images: a batch of one image has no statistics"),
        (("--ckpt", SE, "--points", "layer*", "--images", 4), "--points: no module matches 'layer*'"),
    ],
)
def test_gradients_refuse_what_they_cannot_do(options, message, tmp_path, capsys):
    assert message in failure(capsys, gradients(tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


def test_loose_images_have_no_labels(tmp_path, capsys):
    options = ("--model", "cifar_resnet11", "--data", f"folder:{images(tmp_path, 3)}")
    message = failure(capsys, gradients(tmp_path / "out", *options))
    assert "has no classes, so its images have no labels; put each class in a folder of its own" in message


def test_cost_compares_each_network_with_its_backbone(tmp_path, capsys):
    options = ("--model", "cifar_resnet20_se", "--model", "cifar_resnet20_dia_lstm", "--set", "skip=false")
    command = ("cost", *options, "--ckpt", LSTM, "--rounds", 6, "-b", 2, "--image-size", 16)
    assert analyze(*command, "--json", "--out", tmp_path / "out") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dia.cost/1"
    models = {model["name"]: model for model in document["models"]}
    baselines = {name: model["baseline"] for name, model in models.items()}
    assert baselines == {
        LSTM: "cifar_resnet56",
        "cifar_resnet20_se": "cifar_resnet20",
        "cifar_resnet20_dia_lstm": "cifar_resnet20",
        "cifar_resnet56": "cifar_resnet56",
        "cifar_resnet20": "cifar_resnet20",
    }
    lstm, plain = models["cifar_resnet20_dia_lstm"], models["cifar_resnet20"]
    assert lstm["attention_parameters"] == lstm["parameters"] - plain["parameters"] == 218_848
    assert plain["latency_ratio"] == 1.0
    assert lstm["latency_ratio_interval"][0] <= lstm["latency_ratio"] <= lstm["latency_ratio_interval"][1]
    assert (models[LSTM]["image_size"], lstm["image_size"]) == ([8, 8], [16, 16])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"cost.json", "seconds.nc", "cost-ratios.png", "cost-ratios.pdf", "manifest.json"}


def test_cost_uses_a_backbone_that_is_given(tmp_path, capsys):
    options = ("--model", "cifar_resnet20_se", "--model", "cifar_resnet20", "--rounds", 6, "-b", 1)
    assert analyze("cost", *options, "--image-size", 8, "--out", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "The paper's ratios for ResNet164 on a GPU (section VI-B1): DIA-LSTM 1.12, DIA-LSTM (Light) 1.01" in out
    assert len([line for line in out.splitlines() if line.startswith("cifar_resnet20")]) == 2


def test_the_backbone_of_a_network_keeps_its_own_options():
    spec = ModelSpec(
        name="cifar_resnet20_dia_lstm",
        num_classes=3,
        in_channels=1,
        options={"skip": False, "reduction": 8, "attention_stages": (1,)},
    )
    plain = without_attention(spec)
    assert plain == ModelSpec(name="cifar_resnet20", num_classes=3, in_channels=1, options={"skip": False})
    assert without_attention(plain) is plain


def test_what_suits_a_data_set():
    pixels = torch.full((2, 8, 8, 3), 51, dtype=torch.uint8)
    assert suited("cifar10", pixels).mean == (0.4914, 0.4822, 0.4465)
    assert suited("digits", pixels) == Preprocessing(height=8, width=8, mean=(0.2,) * 3, std=(0.0039,) * 3)
