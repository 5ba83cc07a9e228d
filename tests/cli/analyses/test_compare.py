"""The commands that compare networks: gradients and cost, and the epochs that training keeps for them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cli.common.networks import candidates, run_files
from cli.common.options import NetworkOptions
from dia_analysis import GradientResult, Magnitudes, NetworkGradients, PointGradients, Provenance, network_gradients
from dia_analysis.gradients.magnitudes import BINS
from dia_analysis.paper.gradient_pairs import BesidePlain, Ratio
from dia_models import Checkpoint, ModelSpec, create_model
from dia_models.data import Preprocessing, default_preprocessing, evenly_spaced, open_data
from dia_models.data.selection import Selection
from dia_models.factory import without_attention
from tests.support.commands import analyze, failure, images, plain_checkpoint, train

SE, LSTM = "digits-resnet56-se", "digits-resnet56-dia-lstm"
SMALL = ("--model", "cifar_resnet20", "--model", "cifar_resnet20_dia_lstm", "--set", "skip=false")


def gradients(out, *options):
    return analyze("gradients", *options, "--json", "--out", out)


def test_gradients_of_fresh_networks_beside_a_checkpoint(tmp_path, capsys):
    options = ("--images", 30, "--draws", 3, "--per-block", "--out", tmp_path / "out")
    assert analyze("gradients", "--ckpt", SE, *SMALL, *options) == 0
    out, err = capsys.readouterr()
    assert "the cross-entropy summed over a batch; 30 images, training mode, batches of 30; of several seeds" in out
    assert f"{SE}: " in out
    assert "from stage 3 back to stage 1 its mean changes by" in out
    assert "cifar_resnet20 (3 seeds): " in out
    over = "3 seeds; median [95 % interval of the geometric mean]"
    assert f"  cifar_resnet20_dia_lstm (without skip connections, {over}): mean x " in out
    assert "\x1b" not in out + err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    figures = ("fig13-distribution", "fig13-blocks")
    drawn = {f"{figure}.{kind}" for figure in figures for kind in ("png", "pdf")}
    arrays = {f"network{number}.nc" for number in range(1, 8)}
    assert names == drawn | arrays | {"gradients.json", "images.txt", "manifest.json"}
    document = json.loads((tmp_path / "out" / "gradients.json").read_text())
    drawn = [(model["name"], model["weights_seed"]) for model in document["models"]]
    assert drawn[0][0] == SE
    assert drawn[1:] == [(name, seed) for name in ("cifar_resnet20", "cifar_resnet20_dia_lstm") for seed in (0, 1, 2)]
    first, third = document["models"][0], document["models"][4]
    assert [(group["name"], len(group["seeds"])) for group in document["over_seeds"]] == [
        (SE, 1),
        ("cifar_resnet20", 3),
        ("cifar_resnet20_dia_lstm", 3),
    ]
    assert first["provenance"]["checkpoint_sha256"] == Checkpoint.read(SE).sha256
    assert third["provenance"]["checkpoint_sha256"] is None
    assert third["made_from"]["options"] == {"skip": False}
    (pair,) = document["dia_lstm_beside_plain"]
    ratio = third["stages"][0]["mean_abs"] / document["models"][1]["stages"][0]["mean_abs"]
    assert pair["mean_ratios"][0]["values"][0] == pytest.approx(ratio)
    assert (pair["skip"], pair["seeds"]) == (False, [0, 1, 2])


@pytest.mark.usefixtures("_undrawn")
def test_gradients_are_those_of_the_library_on_the_same_images(tmp_path, capsys):
    assert (
        gradients(tmp_path / "a", "--model", "cifar_resnet20_se", "--images", 30, "-b", 20, "--seed", 5, "--draws", 1)
        == 0
    )
    (model,) = json.loads(capsys.readouterr().out)["models"]
    source = open_data("digits", "test")
    chosen = evenly_spaced(30, 360)
    lines = (tmp_path / "a" / "images.txt").read_text().split()
    order = [int(line.removeprefix("#")) for line in lines]
    assert sorted(order) == chosen
    preprocessing = default_preprocessing("digits", source.pixels[order])
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


@pytest.mark.usefixtures("_undrawn")
def test_gradients_along_training(run, tmp_path, capsys):
    assert gradients(tmp_path / "out", "--run", run, "--every-epoch", "--images", 20) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [(model["name"], model["epoch"]) for model in models] == [("tiny", 0), ("tiny", 2), ("tiny", 3)]
    assert len({model["stages"][0]["mean_abs"] for model in models}) == 3
    assert (tmp_path / "out" / "fig13-training.png").exists()
    (final,) = candidates(NetworkOptions(), run_files([run], every_epoch=False))
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


@pytest.mark.usefixtures("_undrawn")
def test_a_folder_of_classes(tmp_path, capsys):
    data = labelled_folder(tmp_path)
    options = ("--model", "cifar_resnet11", "--data", data, "--draws", 1)
    assert "--image-size: the images have several sizes" in failure(capsys, gradients(tmp_path / "out", *options))
    assert gradients(tmp_path / "out", *options, "--image-size", 24) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["images"], model["made_from"]["num_classes"]) == (7, 2)
    assert model["stages"][0]["shape"] == [64, 24, 24]
    path = tmp_path / "net.safetensors"
    plain_checkpoint(path)
    assert gradients(tmp_path / "two", "--ckpt", path, *options) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["stages"][0]["shape"] for model in models] == [[64, 16, 16]] * 2


def test_files_and_folders_of_one_name_are_told_apart_by_their_paths():
    assert [c.name for c in candidates(NetworkOptions(["a/net.safetensors", "b/other.safetensors"]))] == [
        "net",
        "other",
    ]
    found = candidates(
        NetworkOptions(["a/net.safetensors", "b/net.safetensors"], ["cifar_resnet20"], changes=["skip=false"])
    )
    assert [c.name for c in found] == ["a/net", "b/net", "cifar_resnet20"]
    runs = [[Path("/a/run/epoch-0000.safetensors")], [Path("/b/run/epoch-0000.safetensors")]]
    assert [c.name for c in candidates(NetworkOptions(), runs)] == ["a/run", "b/run"]


def fake(values, name, skip=False):
    """Networks of one kind from several seeds, of which only the size of the gradient matters."""
    spec = ModelSpec(name=name, options={"skip": skip})
    plain = without_attention(spec).model_dump(mode="json") if "_dia_lstm" in name else None
    for seed, by_stage in enumerate(values):
        stages = [
            PointGradients(stage, None, "m", 0, (1,), 1.0, magnitudes(float(value)))
            for stage, value in enumerate(by_stage, 1)
        ]
        yield NetworkGradients(
            name=name,
            stages=tuple(stages),
            blocks=(),
            mode="training",
            num_images=1,
            batch_sizes=(1,),
            loss_name="cross-entropy",
            loss=1.0,
            seed=0,
            epoch=None,
            weights_seed=seed,
            made_from=spec.model_dump(mode="json"),
            provenance=Provenance(),
            plain_from=plain,
        )


def magnitudes(mean):
    return Magnitudes(2, mean, mean**2, 0, 0, mean, mean, np.bincount([30_000], minlength=BINS))


ONES = [(1.0, 1.0)] * 5


@pytest.mark.parametrize(
    ("lstm", "verdict", "reason"),
    [
        ([(1.5, 1.2), (1.7, 1.3), (1.4, 1.2), (1.6, 1.4), (1.5, 1.3)], "holds here", "larger at every stage"),
        ([(0.5, 1.2), (0.6, 1.3), (0.5, 1.2), (0.6, 1.4), (0.5, 1.3)], "does not hold here", "smaller at some stage"),
        ([(1.36, 1), (0.9, 1), (0.55, 1), (0.68, 1), (1.06, 1)], "inconclusive", "not every interval over 5 seeds"),
        ([(1.5, 1.2)], "inconclusive", "1 seed was measured and an interval takes 3"),
        ([(0.5, 0.2), (0.6, 0.3)], "inconclusive", "2 seeds were measured"),
    ],
)
def test_the_papers_claim_is_judged_over_seeds(lstm, verdict, reason):
    networks = (*fake(ONES, "cifar_resnet56"), *fake(lstm, "cifar_resnet56_dia_lstm"))
    found = BesidePlain(GradientResult(networks)).finding()
    assert found.verdict == verdict
    assert reason in found.reason
    (pair,) = BesidePlain(GradientResult(networks)).pairs
    assert [ratio.median for ratio in pair.means] == pytest.approx(
        [np.median(stage) for stage in zip(*lstm, strict=True)]
    )


def test_a_ratios_interval_by_hand():
    """Logarithms -1, 0, 1 (base e): mean 0, standard deviation 1, t of 2 degrees 4.3027: ± 2.4841."""
    low, high = Ratio((np.e**-1, 1.0, np.e)).interval()
    assert (np.log(low), np.log(high)) == pytest.approx((-2.4841, 2.4841), abs=1e-4)
    assert Ratio((1.0, None, 2.0)).interval() is None
    assert Ratio((1.0, 2.0)).interval() is None
    assert (Ratio((0.5, 2.0, None)).larger, str(Ratio((None,)))) == (1, "–")


def test_networks_with_skip_connections_or_other_seeds_are_no_pair():
    plain, lstm = fake(ONES, "cifar_resnet56", skip=True), fake(ONES, "cifar_resnet56_dia_lstm", skip=False)
    found = BesidePlain(GradientResult((*plain, *lstm))).finding()
    assert (found.verdict, found.reason[:35]) == ("inconclusive", "it takes a network with DIA-LSTM be")
    first, second = list(fake(ONES, "cifar_resnet56"))[:2], list(fake(ONES, "cifar_resnet56_dia_lstm"))[1:4]
    (pair,) = BesidePlain(GradientResult((*first, *second))).pairs
    assert [network.weights_seed for network, _ in pair.seeds] == [1]


@pytest.mark.usefixtures("_undrawn")
def test_modes_can_be_chosen(tmp_path, capsys):
    options = ("--model", "cifar_resnet11", "--images", 13, "--mode", "evaluation", "--draws", 1)
    assert gradients(tmp_path / "a", *options, "-b", 13) == gradients(tmp_path / "b", *options, "-b", 5) == 0
    decoder = json.JSONDecoder()
    text = capsys.readouterr().out.strip()
    first, end = decoder.raw_decode(text)
    second = decoder.decode(text[end:].strip())
    a, b = (document["models"][0] for document in (first, second))
    assert (a["mode"], a["batch_sizes"], b["batch_sizes"]) == ("evaluation", [13], [5, 3])
    for one, other in zip(a["stages"], b["stages"], strict=True):
        assert one["mean_abs"] == pytest.approx(other["mean_abs"], rel=1e-4)


def test_batches_are_of_even_size():
    counts = (1, 128, 129, 360, 512, 1000)
    found = [
        Selection("", open_data("digits", "test"), [0] * count, "", 128, 0).in_even_batches().batch_size
        for count in counts
    ]
    assert found == [1, 128, 65, 120, 128, 125]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--model: say which networks"),
        (("--ckpt", SE, "--set", "skip=false"), "--set: this is for networks that --model names"),
        (("--model", "cifar_resnet21"), "--model: cifar_resnet21: the depth must be 9n + 2"),
        (("--model", "cifar_resnet20", "--set", "reduction=4"), "--set: unknown option 'reduction'"),
        (("--model", "cifar_resnet20", "--set", "skip"), "--set: 'skip' is not of the form key=value"),
        (("--ckpt", SE, "--every-epoch"), "--every-epoch: say of which run: --run DIR"),
        (("--run", "/nonexistent", "--every-epoch"), "--run: there is no file or folder /nonexistent"),
        (("--run", "/nonexistent"), "--run: there is no file or folder /nonexistent"),
        (("--ckpt", SE, "--images", 361), "--images: 361 images asked for, digits has 360"),
        (("--ckpt", SE, "--images", 1), "--images: a batch of one image has no statistics"),
        (("--ckpt", SE, "--points", "layer*", "--images", 4), "--points: nothing matches 'layer*'"),
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
    drawn = {f"{figure}.{kind}" for figure in ("cost-ratios",) for kind in ("png", "pdf")}
    assert names == drawn | {"cost.json", "seconds.nc", "manifest.json"}


@pytest.mark.usefixtures("_undrawn")
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
    assert default_preprocessing("cifar10", pixels).mean == (0.4914, 0.4822, 0.4465)
    wanted = Preprocessing(height=8, width=8, mean=(0.2,) * 3, std=(0.0039,) * 3)
    assert default_preprocessing("digits", pixels) == wanted
