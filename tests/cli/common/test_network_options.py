"""Networks of all kinds on the command line: how they are named, whose a value is, and what every command does."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import cli.analyze
import cli.common.main
import cli.train
from cli.common.networks import candidates
from cli.common.options import NetworkOptions
from dia_models import ModelInputError, open_network

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8, num_classes=2):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(3)))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body, self.squeeze = nn.Conv2d(width, width, 3, padding=1), nn.Linear(width, width)
        self.gate = nn.Sigmoid()

    def forward(self, x):
        y = self.body(x).relu()
        return x + y * self.gate(self.squeeze(y.mean((2, 3))))[:, :, None, None]


def by_brightness():
    \"\"\"Bright images are of class 1, whatever else it computes.\"\"\"
    net = Net()
    nn.init.zeros_(net.head.weight)
    return Sum(net)


class Sum(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.scale = net, nn.Parameter(net.head.bias.new_tensor([-9.0, 9.0]))

    def forward(self, x):
        return self.net(x) + x.mean((1, 2, 3))[:, None] * self.scale


def images():
    import torch

    return [(torch.full((3, 8, 8), n / 10), n % 2) for n in range(8)]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A network with its weights, and photos: dark cats and bright dogs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    torch.save(open_network("net.py:Net", image_size=8).model.state_dict(), "net.pth")
    torch.save(open_network("net.py:by_brightness", image_size=8).model.state_dict(), "sum.pth")
    for number in range(24):
        place = tmp_path / "photos" / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 100, (12, 10, 3), np.uint8) + 150 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    return tmp_path


def read(**given):
    return candidates(NetworkOptions(**given))


def run(program, *words):
    return cli.common.main.run(program.app, [str(word) for word in words])


def analyze(command, *words, capsys, json_too=True):
    arguments = [command, *map(str, words), "--data", "folder:photos", *(["--json"] if json_too else [])]
    assert cli.common.main.run(cli.analyze.app, arguments) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    return json.loads(printed.out) if json_too else printed


MINE = ("--model", "net.py:Net", "--weights", "net.pth", "--image-size", 8)


def test_a_network_may_be_given_a_name():
    named, plain = read(models=["A=timm:resnet18", "timm:resnet18"])
    assert (named.name, named.source) == ("A", "timm:resnet18")
    assert (plain.name, plain.source) == ("resnet18", "timm:resnet18")
    again, other = read(models=["cifar_resnet20", "cifar_resnet20"])
    assert (again.name, other.name) == ("cifar_resnet20", "cifar_resnet20 (2)")


def test_values_are_for_all_networks_or_for_one():
    a, b = read(
        models=["A=net.py:Net", "B=net.py:Net"],
        weights=["A:a.pth"],
        changes=["width=4", "B:width=5"],
        image_size=["32", "A:16,24"],
        mean=["0.5,0.25,0.5"],
        num_classes=["B:3"],
    )
    assert (a.given["weights"], a.given["options"], a.given["image_size"]) == ("a.pth", {"width": 4}, [16, 24])
    assert (b.given["options"], b.given["image_size"], b.given["num_classes"]) == ({"width": 5}, [32], 3)
    assert a.given["mean"] == b.given["mean"] == [0.5, 0.25, 0.5]
    assert (a.random, b.random) == (False, True)


def test_a_network_is_named_again_by_its_words():
    [given] = read(models=["A=net.py:Net"], weights=["a.pth"], changes=["width=4"], image_size=["16,24"])
    assert given.words == [
        *("--model", "A=net.py:Net", "--weights", "A:a.pth", "--image-size", "A:16,24"),
        *("--set", "A:width=4"),
    ]
    assert read(models=["cifar_resnet20"])[0].words == ["--model", "cifar_resnet20"]
    assert read(ckpts=["digits-resnet56-se"])[0].words == ["--ckpt", "digits-resnet56-se"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "say which networks: --ckpt FILE or --model NAME"),
        ({"ckpts": ["digits-resnet56-se"], "weights": ["a.pth"]}, "this is for networks that --model names"),
        ({"models": ["A=net.py:Net", "net.py:Net"], "weights": ["a.pth"]}, "there are several networks; say whose"),
        ({"models": ["net.py:Net"], "weights": ["a.pth", "b.pth"]}, "b.pth is given beside another value"),
        ({"models": ["net.py:Net"], "image_size": ["big"]}, "'big' given; accepted: whole numbers, such as 224"),
        ({"models": ["net.py:Net"], "mean": ["0.5;0.4"]}, "'0.5;0.4' given; accepted: numbers"),
        ({"models": ["net.py:Net"], "changes": ["width"]}, "'width' is not of the form key=value"),
        ({"models": ["cifar_resnet20"], "changes": ["widht=3"]}, "unknown option 'widht'"),
        ({"models": ["fasterrcnn_resnet50_fpn"]}, "is a network for detection; a classifier is needed here"),
    ],
)
def test_what_cannot_be_is_one_line(given, text):
    with pytest.raises(ModelInputError) as caught:
        read(**given)
    assert text in str(caught.value)


def test_correlation_takes_several_networks(folder, capsys):
    found = analyze("correlation", "--ckpt", "cifar10-resnet29-se", *MINE, "--images", 4, capsys=capsys)
    assert found["checkpoint"] == "cifar10-resnet29-se"
    [mine] = found["compared"]
    assert (mine["checkpoint"], len(mine["stages"])) == ("net.Net", 1)
    assert mine["training"]["recorded"]


def test_a_verdict_needs_weights_and_an_accuracy_above_chance(folder, capsys):
    untrained = ("--model", "net.py:Net", "--image-size", 8)
    said = analyze("correlation", *untrained, capsys=capsys, json_too=False).out
    assert "inconclusive, as no training of it is recorded" in said
    said = analyze("correlation", *MINE, capsys=capsys, json_too=False)
    assert "is not above chance" in said.out
    assert "assumed, since nothing says it: mean 0.485, 0.456, 0.406 (as for ImageNet)" in said.err
    assert "classes cat, dog (those of the data in alphabetical order)" in said.err
    known = ("--model", "net.py:by_brightness", "--weights", "sum.pth", "--image-size", 8, "--mean", 0.5, "--std", 0.5)
    said = analyze("correlation", *known, capsys=capsys, json_too=False)
    assert "It gets 100.0% of these images right" in said.out
    assert "inconclusive, as this is one run" in said.out


@pytest.mark.parametrize("command", ["gradcam", "gini", "gradients"])
def test_the_commands_take_networks_of_ones_own(folder, capsys, command):
    found = analyze(command, *MINE, "--images", 8, capsys=capsys)
    assert "net.Net" in json.dumps(found)


def test_a_store_of_a_network_of_ones_own(folder, capsys):
    analyze("capture", *MINE, "--out", "store.zarr", capsys=capsys)
    assert cli.common.main.run(cli.analyze.app, ["correlation", "--capture", "store.zarr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == "net.Net"
    with pytest.raises(AssertionError, match="2 networks given; this command takes one"):
        analyze("capture", *MINE[:2], "--model", "B=net.py:Net", "--image-size", 8, capsys=capsys)


def test_cost_sets_networks_of_all_kinds_side_by_side(folder, capsys):
    words = [*MINE[:2], "--model", "cifar_resnet11_se", "--image-size", 8, "--num-classes", 2, "--rounds", 6, "--json"]
    assert cli.common.main.run(cli.analyze.app, ["cost", *map(str, words), "-b", "2"]) == 0
    models = {each["name"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert list(models) == ["net.Net", "cifar_resnet11_se", "cifar_resnet11"]
    assert (models["net.Net"]["baseline"], models["cifar_resnet11_se"]["baseline"]) == (None, "cifar_resnet11")


def test_eval_tests_networks_of_ones_own(folder, capsys):
    words = [
        "--model",
        "net.py:by_brightness",
        "--weights",
        "sum.pth",
        "--image-size",
        "8",
        "--mean",
        "0.5",
        "--std",
        "0.5",
    ]
    arguments = ["eval", *words, "--data", "folder:photos", "--json"]
    assert cli.common.main.run(cli.train.app, arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["accuracy"], found["per_class_accuracy"]) == (1.0, {"cat": 1.0, "dog": 1.0})
    assert found["network"] == "net.py:by_brightness"


def test_the_report_of_a_network_of_ones_own_says_what_it_is(folder, capsys):
    analyze("report", *MINE, "--images", 8, "--out", "page.html", capsys=capsys, json_too=False)
    page = (folder / "page.html").read_text()
    assert "net.py:Net" in page
    assert "--weights net.Net:net.pth" in page


def test_images_of_ones_own_code(folder, capsys):
    words = [*map(str, MINE), "--data", "net.py:images", "--json"]
    assert cli.common.main.run(cli.analyze.app, ["correlation", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["data"], found["images"], found["training"]["images"]) == ("net.py:images", 8, 8)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--model", "net.py:Net"), "--data: none given, and no checkpoint says what its network was trained on"),
        (("--model", "nets.py:Net"), "--model: there is no file or folder nets.py"),
        (("--model", "net.py:Nets", "--data", "digits"), "--model: net.py has no Nets; did you mean 'Net'?"),
        (("--model", "net.py:Net", "--weights", "no.pth"), "--weights: there is no file or folder no.pth"),
        (("--model", "net.py:Net", "--set", "widht=3", "--data", "digits"), "--set: net.py:Net has no option widht"),
        (("--model", "net.py:Net", "--set", "width=4", "--weights", "net.pth", "--data", "digits"), "have other sizes"),
        (("--model", "cifar_resnet20_sse"), "--model: unknown model 'cifar_resnet20_sse'; did you mean"),
        (("--model", "timm:test_resnets", "--data", "digits"), "--model: unknown model 'test_resnets'"),
        (("--ckpt", "digits-resnet56-se", "--mean", "0.5"), "--mean: this is for networks that --model names"),
    ],
)
def test_errors_name_the_option(folder, capsys, words, text):
    assert cli.common.main.run(cli.analyze.app, ["correlation", *words]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert text in said
    assert len(said) <= 300


def test_weights_for_a_network_of_no_such_name(tmp_path):
    torch.save({}, tmp_path / "w.pth")
    given = NetworkOptions(models=["timm:test_vit"], weights=[f"A:{tmp_path / 'w.pth'}"])
    with pytest.raises(ModelInputError, match="no network is named A; name it: --model A="):
        candidates(given)
