"""Weights of public code load by name and give the same outputs."""

import json
import pickle
import re
from argparse import Namespace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorchcv.model_provider import get_model

import cli.common.main
import cli.train
from dia_models import Checkpoint, ModelInputError, create_model
from dia_models.checkpoints.public_weights import build_public, load_public
from dia_models.checkpoints.state_dict import read_state_dict as read

pytestmark = pytest.mark.numeric


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
    load_public(model, public.state_dict())
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
    load_public(model, {f"module.{theirs}": ours[key] for theirs, key in PUBLIC[name].items()})
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], ours[key]) for key in ours)


def public_weights(folder, name="cifar_resnet20_dia_lstm", classes=10, **around):
    weights = create_model(name, num_classes=classes).state_dict()
    torch.save({"state_dict": {t: weights[o] for t, o in PUBLIC[name].items()}, **around}, folder / "public.pth")
    return folder / "public.pth", weights


def train(*arguments):
    return cli.common.main.run(cli.train.app, [str(a) for a in arguments])


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


def read_state_dict(path):
    return read(path, "source").tensors


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_nothing_in_a_pickle_runs(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(ModelInputError, match="evil.pth is not read, since it is no file that torch.save writes"):
        read_state_dict(tmp_path / "evil.pth")
    source, _ = public_weights(tmp_path, extra=Evil())
    with pytest.raises(ModelInputError, match="is not read, since it holds more than tensors"):
        read_state_dict(source)


def test_a_file_that_holds_other_objects_says_which_and_what_to_do(tmp_path):
    source, _ = public_weights(tmp_path, hyper_parameters=Fraction(1, 10))
    with pytest.raises(ModelInputError) as caught:
        read_state_dict(source)
    assert "holds more than tensors: fractions.Fraction. Where its code is, run torch.save(torch.load(" in str(
        caught.value
    )
    assert "weights_only=False)['state_dict'], 'weights.pth')" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_the_options_of_a_command_beside_the_weights_are_passed_over(tmp_path):
    options = Namespace(lr=0.1, out=Path("runs"))
    torch.save({"args": options, "state_dict": {"a": torch.ones(2)}}, tmp_path / "a.pth")
    assert list(read_state_dict(tmp_path / "a.pth")) == ["a"]


NUMBERS = [np.float64(3), np.float32(3), np.int64(3), np.bool_(True), np.arange(3)]


@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"], ids=["numpy 2", "numpy 1"])
@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_numbers_of_numpy_beside_the_weights_are_passed_over(tmp_path, module, number):
    path = tmp_path / "a.pth"
    torch.save({"best_acc": number, "state_dict": {"a": torch.ones(2)}}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy" in content
    path.write_bytes(content.replace(b"numpy._core", module).replace(b"numpy.core", module))
    assert read_state_dict(path)["a"].tolist() == [1, 1]


def test_numpys_own_functions_are_not_called(tmp_path, monkeypatch):
    """A pickle can give a type of numbers flags that make numpy take bytes for addresses; so nothing of it is built."""
    torch.save({"best_acc": np.float64(3), "state_dict": {"a": torch.ones(2)}}, tmp_path / "a.pth")
    monkeypatch.setattr("numpy.dtype", None)
    assert list(read_state_dict(tmp_path / "a.pth")) == ["a"]


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
        load_public(create_model("cifar_resnet29_dia_lstm"), state)
    with pytest.raises(ModelInputError, match="1 of 137 names are unknown, first layer1.spare.weight"):
        load_public(create_model("cifar_resnet20_dia_lstm"), state | {"layer1.spare.weight": torch.zeros(1)})


NAME = "cifar_resnet20_dia_lstm"


def public_state(prefix=""):
    """Weights under the paper's names after a prefix, and the same under ours."""
    ours = {key: torch.randn_like(t) for key, t in create_model(NAME).state_dict().items() if "num_batches" not in key}
    return {f"{prefix}{theirs}": ours[key] for theirs, key in PUBLIC[NAME].items()}, ours


def loaded(state):
    return build_public(NAME, state).state_dict()


PREFIXES = ("module.", "model.", "net.", "_orig_mod.", "model._orig_mod.module.", "backbone.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_stands_before_the_names_is_found(prefix):
    state, ours = public_state(prefix)
    found = loaded(state)
    assert all(torch.equal(found[key], ours[key]) for key in ours)


def test_an_averaged_model_is_unwrapped(tmp_path):
    ours = {key: t for key, t in create_model(NAME).state_dict().items() if "num_batches" not in key}
    theirs = {f"module.{theirs}": ours[key] for theirs, key in PUBLIC[NAME].items()}
    torch.save({"model_ema": {"n_averaged": torch.tensor(5), **theirs}, "epoch": 3}, tmp_path / "a.pth")
    found = loaded(read_state_dict(tmp_path / "a.pth"))
    assert all(torch.equal(found[key], ours[key]) for key in ours)


def test_a_lightning_checkpoint_is_unwrapped_and_what_is_left_out_is_said(tmp_path):
    state, ours = public_state("model.")
    state |= {"criterion.weight": torch.ones(10), "metric.total": torch.zeros(1), "metric._extra_state": None}
    callbacks = {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}}
    torch.save({"epoch": 2, "state_dict": state, "callbacks": callbacks, "loops": {}}, tmp_path / "a.ckpt")
    with pytest.warns(
        UserWarning, match="under 'model.' are taken; 2 of 138 tensors .* left out: criterion.weight, met"
    ):
        found = loaded(read_state_dict(tmp_path / "a.ckpt"))
    assert all(torch.equal(found[key], ours[key]) for key in ours)


def test_names_that_are_not_known_are_listed_with_the_nearest_prefix():
    state, _ = public_state("model.")
    state |= {f"model.layer1.{'x' * 500}{n}": torch.ones(1) for n in range(9)}
    with pytest.raises(ModelInputError) as caught:
        loaded(state)
    assert str(caught.value).startswith("9 of 145 names under 'model.' are unknown, first model.layer1.xxx")
    assert str(caught.value).endswith("and of pytorchcv")
    assert len(str(caught.value)) <= 300


def test_shapes_that_differ_are_shown():
    state, _ = public_state()
    state["conv1.weight"] = torch.ones(32, 3, 3, 3)
    with pytest.raises(ModelInputError, match=r"stem.0.weight has shape \(32, 3, 3, 3\), not \(16, 3, 3, 3\)"):
        loaded(state)


def test_a_transposed_matrix_is_not_taken_for_the_matrix():
    state, _ = public_state()
    state["fc.weight"] = state["fc.weight"].T
    with pytest.raises(ModelInputError, match=r"classifier.weight has shape \(256, 10\), not \(10, 256\)"):
        load_public(create_model(NAME), state)


def test_the_plain_resnext_that_the_papers_code_is_built_on_is_known():
    """There the blocks of a stage are called `stage_1.stage_1_bottleneck_0`, ...; widths as in the paper's code."""
    names = PUBLIC["cifar_resnext101_8x32_dia_lstm"]
    plain = {
        re.sub(r"(stage_\d)\.ModuleList\.(\d+)", r"\1.\1_bottleneck_\2", theirs): ours
        for theirs, ours in names.items()
        if "lstm" not in theirs
    }
    assert "stage_3.stage_3_bottleneck_10.bn_expand.running_var" in plain
    with torch.device("meta"):
        sizes = create_model("cifar_resnext101_8x32").state_dict()
    ours = {key: torch.full(t.shape, float(n)) for n, (key, t) in enumerate(sizes.items()) if "num_batches" not in key}
    assert set(plain.values()) == set(ours)
    found = build_public("cifar_resnext101_8x32", {theirs: ours[key] for theirs, key in plain.items()}).state_dict()
    assert all(torch.equal(found[key], ours[key]) for key in ours)


@pytest.mark.parametrize("name", ["vit_small_patch16", "resnet18"])
def test_networks_without_public_weights_say_which_have_some(name):
    with pytest.raises(ModelInputError, match="known are those of cifar_resnet, cifar_preresnet, cifar_wrn"):
        build_public(name, {"fc.weight": torch.zeros(2, 2)})
