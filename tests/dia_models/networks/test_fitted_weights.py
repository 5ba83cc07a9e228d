"""State dicts as people save them, loaded into a network by name; what does not fit is listed."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dia_models import ModelInputError, open_network
from dia_models.checkpoints.state_dict import read_state_dict

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=3, width=4):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


def wrapped():
    outer = nn.Sequential(nn.Identity())
    outer.add_module("net", Net())
    return outer


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.denselayer1 = nn.Sequential()
        self.denselayer1.add_module("norm1", nn.BatchNorm2d(1))
        self.denselayer1.add_module("conv1", nn.Conv2d(1, 2, 3))

    def forward(self, x):
        return self.denselayer1(x).mean((2, 3))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def state(folder):
    """The weights of another draw."""
    return open_network("net.py:Net", image_size=8, seed=9).model.state_dict()


def opened(weights="a.pth", **given):
    return open_network("net.py:Net", weights=weights, image_size=8, **given)


def refused(**given):
    with pytest.raises(ModelInputError) as caught:
        opened(**given)
    assert caught.value.argument == "weights"
    assert len(str(caught.value)) <= 300
    return str(caught.value)


def prefixed(state, prefix):
    return {f"{prefix}{name}": t for name, t in state.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors"])
def test_every_kind_of_file_is_read(state, suffix):
    (save_file if suffix == ".safetensors" else torch.save)(state, f"a{suffix}")
    assert torch.equal(opened(f"a{suffix}").model.conv.weight, state["conv.weight"])


@pytest.mark.parametrize("entry", ["state_dict", "model", "model_state_dict", "model_ema", "net", "ema"])
def test_entries_of_a_checkpoint_are_unwrapped(state, entry):
    torch.save({entry: state, "epoch": 3, "optimizer": {"state": {0: torch.ones(1)}}}, "a.pth")
    found = opened()
    assert torch.equal(found.model.conv.weight, state["conv.weight"])
    assert found.weights == f"a.pth, {entry}"


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.", "_orig_mod.", "model._orig_mod.module.", "anything."])
def test_what_stands_before_the_names_is_taken_off(state, prefix):
    torch.save(prefixed(state, prefix), "a.pth")
    assert torch.equal(opened().model.conv.weight, state["conv.weight"])


def test_names_inside_a_compiled_part_are_read(state):
    torch.save({name.replace("conv.", "conv._orig_mod."): t for name, t in state.items()}, "a.pth")
    assert torch.equal(opened().model.conv.weight, state["conv.weight"])


def test_a_wrapper_takes_the_weights_of_what_it_holds(state):
    torch.save(state, "a.pth")
    found = open_network("net.py:wrapped", weights="a.pth", image_size=8)
    assert torch.equal(found.model.net.conv.weight, state["conv.weight"])


def test_a_lightning_checkpoint_is_read_and_what_is_left_out_is_said(state):
    saved = {**prefixed(state, "model."), "criterion.weight": torch.ones(3), "metric.total": torch.ones(1)}
    torch.save({"state_dict": saved, "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2"}, "a.ckpt")
    found = opened("a.ckpt")
    assert torch.equal(found.model.conv.weight, state["conv.weight"])
    assert found.weights == "a.ckpt, state_dict, under 'model.' (2 other tensors left out)"


class Settings:
    pass


def test_objects_in_a_lightning_checkpoint_are_refused_with_the_line_that_saves_the_weights(state):
    torch.save({"state_dict": prefixed(state, "model."), "hyper_parameters": {"settings": Settings()}}, "a.ckpt")
    said = refused(weights="a.ckpt")
    assert "holds more than tensors" in said
    [line] = [part for part in said.split(", run ")[1].split(", and give that") if "torch.save" in part]
    exec(line, {"torch": torch})
    assert torch.equal(opened("weights.pth").model.conv.weight, state["conv.weight"])


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: {"model": model}], ids=["alone", "in a dict"])
def test_a_pickled_network_is_refused_with_the_line_that_saves_its_weights(folder, wrap):
    torch.save(wrap(nn.Sequential(nn.Conv2d(1, 4, 3))), "a.pth")
    said = refused()
    assert "holds a whole network (a pickled torch.nn.modules" in said
    exec(said.split(", run ")[1].removesuffix(", and give that"), {"torch": torch})
    assert list(torch.load("weights.pth")) == ["0.weight", "0.bias"]


def test_names_of_densenet_before_torch_0_4_are_read(folder):
    other = open_network("net.py:Dense", image_size=8, seed=9).model.state_dict()
    old = {name.replace("norm1", "norm.1").replace("conv1", "conv.1"): t for name, t in other.items()}
    old = {name: t for name, t in old.items() if "num_batches" not in name}
    torch.save(old, "a.pth")
    found = open_network("net.py:Dense", weights="a.pth", image_size=8).model.state_dict()
    assert all(torch.equal(found[name], t) for name, t in other.items())


def test_counters_need_not_fit(state):
    saved = {name: t for name, t in state.items() if "num_batches" not in name} | {"conv.total_ops": torch.ones(1)}
    torch.save(saved, "a.pth")
    assert torch.equal(opened().model.norm.running_var, state["norm.running_var"])


def test_the_number_of_classes_is_that_of_the_weights(folder):
    torch.save(open_network("net.py:Net", image_size=8, num_classes=7).model.state_dict(), "a.pth")
    assert opened().num_classes == 7
    assert "2 of 9 tensors have other sizes: head.weight (7, 4), the network's (3, 4)" in refused(num_classes=3)


def test_other_sizes_are_named(folder):
    torch.save(open_network("net.py:Net", image_size=8, options={"width": 6}).model.state_dict(), "a.pth")
    assert "7 of 9 tensors have other sizes: conv.weight (6, 1, 3, 3), the network's (4, 1, 3, 3), " in refused()


def test_what_does_not_fit_is_listed_beside_what_does(state):
    torch.save(prefixed({n: t for n, t in state.items() if "head" not in n}, "student.body."), "a.pth")
    said = refused()
    assert "a.pth does not fit net.Net: 7 of 9 names are there with 'student.body.' before them" in said
    assert "missing 2: head.weight, head.bias" in said


def test_names_that_the_network_does_not_have_are_listed(state):
    torch.save({**state, "aux.weight": torch.ones(1)}, "a.pth")
    assert "9 of 9 names are there; not the network's 1: aux.weight" in refused()


def test_weights_of_another_network_show_both_kinds_of_names(folder):
    torch.save(nn.Linear(2, 2).state_dict(), "a.pth")
    said = refused()
    assert "none of its 2 names (weight, bias) are among the network's (conv.weight, conv.bias, …)" in said


def test_of_two_networks_in_one_file_the_one_that_is_meant_is_asked_for(state):
    torch.save({**prefixed(state, "student."), **prefixed(state, "teacher.")}, "a.pth")
    assert "several networks that fit, under 'student.' and 'teacher.'" in refused()
    torch.save({**prefixed(state, "model."), **prefixed(state, "average.")}, "a.pth")
    assert "under 'model.'" in opened().weights


def test_half_precision_becomes_single(state):
    torch.save({name: t.half() if t.is_floating_point() else t for name, t in state.items()}, "a.pth")
    assert opened().model.conv.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.pth", b"", "a.pth is empty, damaged or not written by torch.save; give a file of weights"),
        ("a.safetensors", b"12345678", "a.safetensors is damaged or no safetensors file"),
        ("a.npz", b"1", "a.npz is not a file of weights; accepted: .pth, .pt, .ckpt, .safetensors, .bin, .tar"),
        ("b.pth", None, "b.pth cannot be read: No such file or directory"),
    ],
)
def test_files_without_weights_are_refused(folder, name, content, text):
    if content is not None:
        (folder / name).write_bytes(content)
    assert text in refused(weights=name)


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_files_that_hold_code_are_told_from_weights(folder):
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), "a.pt2")
    (folder / "a.pt2").rename("a.pt")
    assert "a.pt is an exported program or another archive" in refused(weights="a.pt")
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save("b.pt")
    assert "b.pt is a TorchScript file" in refused(weights="b.pt")


def test_a_large_file_is_not_opened(state, monkeypatch):
    torch.save(state, "a.pth")
    monkeypatch.setattr("dia_models.checkpoints.state_dict.LARGEST_FILE", 1)
    assert "at most" in refused()


def test_of_several_sets_of_weights_one_is_read_and_the_others_are_named(tmp_path):
    weights = nn.Linear(2, 2).state_dict()
    torch.save({"model_ema": weights, "model": {k: v + 1 for k, v in weights.items()}, "epoch": 3}, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="a.pth holds several sets of weights: model is read, model_ema is not"):
        found = read_state_dict(tmp_path / "a.pth")
    assert found.entry == "model"
    torch.testing.assert_close(found.tensors["bias"], weights["bias"] + 1)


def test_the_only_entry_with_tensors_is_taken_whatever_its_name(tmp_path):
    weights = nn.Linear(2, 2).state_dict()
    torch.save({"teacher": weights, "epoch": 3, "args": {"lr": 0.1}}, tmp_path / "a.pth")
    assert read_state_dict(tmp_path / "a.pth").entry == "teacher"
    torch.save({"teacher": weights, "student": weights}, tmp_path / "b.pth")
    with pytest.raises(ModelInputError, match="holds no state dict, .* its entries are teacher, student"):
        read_state_dict(tmp_path / "b.pth")
