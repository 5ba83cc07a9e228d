"""Weights of public code load by name and give the same outputs."""

import json
import pickle

import pytest
import torch
from pytorchcv.model_provider import get_model

import cli.main
import cli.train
from dia_models import Checkpoint, ModelInputError, create_model
from dia_models.outside import load_outside, read_state_dict


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("resnet164bn_cifar10", "cifar_resnet164"),
        ("seresnet164bn_cifar100", "cifar_resnet164_se"),
        ("diaresnet164bn_cifar10", "cifar_resnet164_dia_lstm"),
    ],
)
def test_pytorchcv_gives_the_same_outputs(theirs, ours):
    public = get_model(theirs, pretrained=False).eval().double()
    with torch.no_grad():
        for module in public.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(2.0, 3.0)
    model = create_model(ours, num_classes=public.num_classes).eval().double()
    load_outside(model, public.state_dict())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected, found = public(images), model(images)
    assert (expected[0] - expected[1]).abs().max() > 1e-4 * expected.abs().max()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def parts(theirs, ours, kind):
    tails = ["weight"] if kind == "conv" else ["weight", "bias", "running_mean", "running_var"]
    tails = ["weight", "bias"] if kind == "linear" else tails
    return {f"{theirs}.{tail}": f"{ours}.{tail}" for tail in tails}


def lstm(prefix, stage):
    return {
        f"{prefix}.lstm.w_{a}.0.seq.{k}.{t}": f"stages.{stage}.attention.cells.0.{b}.{k}.{t}"
        for a, b in (("ih", "input_gates"), ("hh", "hidden_gates"))
        for k in (0, 2)
        for t in ("weight", "bias")
    }


def dianet(top, stage_name, block, first):
    """The names in the paper's public code, and ours for each: three stages, `blocks` blocks each."""
    names = {}
    for theirs, (ours, kind) in top.items():
        names |= parts(theirs, ours, kind)
    for stage in range(3):
        names |= lstm(stage_name.format(stage + 1), stage)
        for number in range(first["blocks"]):
            theirs = f"{stage_name.format(stage + 1)}.ModuleList.{number}"
            ours = f"stages.{stage}.blocks.{number}"
            for part, (place, kind) in {**block, **(first["parts"] if number == 0 else {})}.items():
                names |= parts(f"{theirs}.{part}", f"{ours}.{place}", kind)
    return names


def in_turn(*names):
    kinds = {"c": "conv", "b": "norm"}
    return {name: (f"branch.{place}", kinds[kind]) for name, place, kind in names}


PUBLIC = {
    "cifar_resnet20_dia_lstm": dianet(
        {"conv1": ("stem.0", "conv"), "bn1": ("stem.1", "norm"), "fc": ("classifier", "linear")},
        "layer{}",
        in_turn(
            ("conv1", 0, "c"), ("bn1", 1, "b"), ("conv2", 3, "c"), ("bn2", 4, "b"), ("conv3", 6, "c"), ("bn3", 7, "b")
        ),
        {"blocks": 2, "parts": {"downsample.0": ("shortcut.0", "conv"), "downsample.1": ("shortcut.1", "norm")}},
    ),
    "cifar_preresnet20_dia_lstm": dianet(
        {"conv1": ("stem", "conv"), "bn": ("tail.0", "norm"), "fc": ("classifier", "linear")},
        "layer{}",
        in_turn(
            *(("bn1", 0, "b"), ("conv1", 2, "c"), ("bn2", 3, "b"), ("conv2", 5, "c")),
            *(("bn3", 6, "b"), ("conv3", 8, "c"), ("bn_additional", 9, "b")),
        ),
        {"blocks": 2, "parts": {"downsample.0": ("shortcut", "conv")}},
    ),
    "cifar_wrn52_4_dia_lstm": dianet(
        {"conv1": ("stem", "conv"), "bn1": ("tail.0", "norm"), "fc": ("classifier", "linear")},
        "block{}",
        {
            "bn1": ("prepare.0", "norm"),
            **in_turn(("conv1", 0, "c"), ("bn2", 1, "b"), ("conv2", 4, "c"), ("bn_additional", 5, "b")),
        },
        {"blocks": 8, "parts": {"convShortcut": ("shortcut", "conv")}},
    ),
    "cifar_resnext101_8x32_dia_lstm": dianet(
        {"conv_1_3x3": ("stem.0", "conv"), "bn_1": ("stem.1", "norm"), "classifier": ("classifier", "linear")},
        "stage_{}",
        in_turn(
            *(("conv_reduce", 0, "c"), ("bn_reduce", 1, "b"), ("conv_conv", 3, "c"), ("bn", 4, "b")),
            *(("conv_expand", 6, "c"), ("bn_expand", 7, "b")),
        ),
        {
            "blocks": 11,
            "parts": {
                "shortcut.shortcut_conv": ("shortcut.0", "conv"),
                "shortcut.shortcut_bn": ("shortcut.1", "norm"),
            },
        },
    ),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_names_of_the_papers_code_are_known(name):
    model = create_model(name, num_classes=100)
    ours = {key: torch.randn_like(t) for key, t in model.state_dict().items() if "num_batches" not in key}
    assert set(PUBLIC[name].values()) == set(ours)
    load_outside(model, {f"module.{theirs}": ours[key] for theirs, key in PUBLIC[name].items()})
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], ours[key]) for key in ours)


def public_weights(folder, name="cifar_resnet20_dia_lstm", classes=10, **around):
    weights = create_model(name, num_classes=classes).state_dict()
    torch.save({"state_dict": {t: weights[o] for t, o in PUBLIC[name].items()}, **around}, folder / "public.pth")
    return folder / "public.pth", weights


def train(*arguments):
    return cli.main.run(cli.train.app, [str(a) for a in arguments])


def test_the_command_writes_a_checkpoint(tmp_path, capsys):
    source, weights = public_weights(tmp_path, epoch=164, best_acc=77.09)
    out = tmp_path / "ours.safetensors"
    assert train("import", source, "--model", "cifar_resnet20_dia_lstm", "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_classes"] == 10
    checkpoint = Checkpoint.read(out)
    assert checkpoint.info.classes[3] == "cat"
    assert torch.equal(checkpoint.build().classifier.weight, weights["classifier.weight"])
    assert train("import", source, "--model", "cifar_resnet20_dia_lstm", "--out", out) == 1
    assert "--out" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_in_a_pickle_runs(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(ModelInputError, match=r"evil.pth (is not read|cannot be read)"):
        read_state_dict(tmp_path / "evil.pth")
    source, _ = public_weights(tmp_path, extra=Evil())
    with pytest.raises(ModelInputError, match="is not read, since it holds more than tensors"):
        read_state_dict(source)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1, 2])])
def test_files_that_hold_no_state_dict_are_refused(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ModelInputError) as caught:
        read_state_dict(tmp_path / "a.pth")
    assert caught.value.argument == "source"
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path):
    source, _ = public_weights(tmp_path)
    state = read_state_dict(source)
    with pytest.raises(ModelInputError, match="these are not the weights of cifar_resnet29_dia_lstm"):
        load_outside(create_model("cifar_resnet29_dia_lstm"), state)
    with pytest.raises(ModelInputError, match="names are unknown, the first is"):
        load_outside(create_model("cifar_resnet20_dia_lstm"), state | {"layer1.spare.weight": torch.zeros(1)})
