"""Residual networks of torchvision's blocks: its weights and outputs, and attention where it should be."""

import pytest
import torch
import torchvision

from dia_analysis import capture
from dia_models import (
    CheckpointInfo,
    ModelInputError,
    create_model,
    load,
    load_backbone,
    save_checkpoint,
)
from dia_models.data import Preprocessing
from tests.support.plain import dia_lstm, se

pytestmark = pytest.mark.numeric

STAGES = ("layer1", "layer2", "layer3", "layer4")


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def theirs(depth, **options):
    model = getattr(torchvision.models, f"resnet{depth}")(num_classes=7, **options).double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # statistics that a fresh network does not have
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.3, 0.7)
    return model


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_tensors_are_torchvisions(depth):
    with torch.device("meta"):
        ours, public = create_model(f"resnet{depth}", num_classes=1000), getattr(torchvision.models, f"resnet{depth}")()
    assert shapes(ours) == shapes(public)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in public.named_parameters()]


@pytest.mark.parametrize("depth", [18, 50])
def test_same_seed_same_network_as_torchvisions(depth):
    torch.manual_seed(3)
    public = getattr(torchvision.models, f"resnet{depth}")(num_classes=7).eval().double()
    torch.manual_seed(3)
    ours = create_model(f"resnet{depth}", num_classes=7).eval().double()
    images = torch.randn(2, 3, 40, 33, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), public(images), rtol=1e-9, atol=1e-9)


def plain(model, x, weights, gate, shared, skip=True, norms=True):
    """Torchvision's network run by hand, with a gate on each branch."""

    def norm(module, features):
        return module(features) if norms else features

    x = model.maxpool(torch.relu(norm(model.bn1, model.conv1(x))))
    for stage in STAGES:
        state = None
        for number, block in enumerate(getattr(model, stage)):
            shortcut = x if block.downsample is None else block.downsample(x)
            x = torch.relu(norm(block.bn1, block.conv1(x)))
            x = norm(block.bn2, block.conv2(x))
            if hasattr(block, "conv3"):
                x = norm(block.bn3, block.conv3(torch.relu(x)))
            name = f"{stage}.attention" if shared else f"{stage}.attention.{number}"
            h, state = gate(x.mean((2, 3)), weights, name, state)
            x = x * h[:, :, None, None]
            x = torch.relu(x + shortcut if skip else x)
    return model.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("depth", "attention", "gate", "shared"),
    [(18, "se", se, False), (18, "dia_lstm", dia_lstm, True), (50, "dia_lstm", dia_lstm, True)],
)
def test_attention_acts_on_the_branch_after_its_last_batch_norm(depth, attention, gate, shared):
    public = theirs(depth)
    model = create_model(f"resnet{depth}_{attention}", num_classes=7, reduction=16).double().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "attention" in name}
    load_backbone(model, public.state_dict())
    weights = model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())
    images = torch.randn(2, 3, 40, 33, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(public, images, weights, gate, shared)
        assert (expected - public(images)).abs().max() > 1e-3
        torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("depth", "options"), [(18, {"skip": False}), (18, {"batch_norm": False}), (50, {"batch_norm": False})]
)
def test_switches_leave_out_what_they_say(depth, options):
    public = theirs(depth)
    model = create_model(f"resnet{depth}_dia_se", num_classes=7, **options).double().eval()
    model.load_state_dict(public.state_dict(), strict=False)
    norms = options.get("batch_norm", True)
    assert norms == any(name.endswith("bn1.weight") for name in model.state_dict())
    downsampled = any("downsample" in name for name in model.state_dict())
    assert downsampled == options.get("skip", True)
    images = torch.randn(2, 3, 33, 33, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(public, images, model.state_dict(), se, True, options.get("skip", True), norms)
        torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


def test_attention_is_where_it_is_asked_for():
    with torch.device("meta"):
        fifth = create_model("resnet50_se", attention_blocks=(5,))
        second = create_model("resnet18_dia_lstm", attention_stages=(2, 4), attention_blocks=(1,))
    assert [getattr(fifth, stage).attention is None for stage in STAGES] == [True, True, False, True]
    assert fifth.layer3.connected == (False, False, False, False, True, False)
    assert [getattr(second, stage).attention is None for stage in STAGES] == [True, False, True, False]


def test_one_step_changes_every_parameter_and_the_checkpoint_is_captured(tmp_path):
    model = create_model("resnet18_dia_lstm", num_classes=2, in_channels=1, reduction=16)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.nn.functional.cross_entropy(model(torch.randn(4, 1, 40, 40)), torch.tensor([0, 1, 0, 1])).backward()
    optimizer.step()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []

    preprocessing = Preprocessing(height=40, width=40, mean=(0.5,), std=(0.5,))
    info = CheckpointInfo(model=model.spec, data="folder:x", classes=("a", "b"), preprocessing=preprocessing)
    save_checkpoint(tmp_path / "m.safetensors", model, info)
    loaded, images = load(tmp_path / "m.safetensors"), torch.randn(2, 1, 40, 40)
    with torch.no_grad(), capture(loaded) as records:
        assert torch.equal(loaded(images), model.eval()(images))
    assert [key for key in records if key[0].endswith("gate")] == [
        (f"{stage}.attention.gate", call) for stage in STAGES for call in range(2)
    ]
    assert records["layer3.attention.gate", 1].shape == (2, 256)


def test_a_hook_on_output_sees_what_a_block_puts_out():
    model, seen = create_model("resnet18_se").eval(), {}
    for name in ("layer2.1.output", "layer2"):
        model.get_submodule(name).register_forward_hook(lambda *args, n=name: seen.update({n: args[2]}))
    model(torch.randn(1, 3, 64, 64))
    assert torch.equal(seen["layer2.1.output"], seen["layer2"])
    assert seen["layer2"].shape == (1, 128, 8, 8)


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("resnet18", {}, 1),
        ("resnet18_dia_lstm", {}, 1),
        ("resnet18_srm", {}, 33),
        ("resnet18_dia_sge", {}, 33),
        ("resnet18_srm", {"attention_stages": (1, 2)}, 9),
    ],
)
def test_the_smallest_image_is_taken_and_smaller_ones_are_refused(name, options, side):
    model = create_model(name, **options).eval()
    assert model(torch.randn(1, 3, side, side)).isfinite().all()
    with pytest.raises(ModelInputError, match=f"at least {side}x{side} is needed"):
        model(torch.randn(1, 3, side + 5, side - 1))


def test_weights_of_other_classes_are_loaded_without_the_classifier():
    public, model = theirs(18), create_model("resnet18_dia_se", num_classes=3)
    classifier = model.fc.weight.clone()
    load_backbone(model, public.state_dict(), leave_out=("fc",))
    assert torch.equal(model.fc.weight, classifier)
    assert torch.equal(model.layer4.get_submodule("1.conv2").weight, public.layer4[1].conv2.weight.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layer3.1.bn2.bias"), "1 tensors are missing, the first is 'layer3.1.bn2.bias'"),
        (lambda w: w.update({"layer3.1.bn4.bias": torch.ones(1)}), "1 tensors are not the network's.*bn4.bias'"),
        (lambda w: w.update({"fc.bias": torch.ones(9)}), r"'fc.bias' has shape \(9,\), the network's has \(7,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message):
    weights = dict(theirs(18).state_dict())
    change(weights)
    with pytest.raises(ModelInputError, match=message):
        load_backbone(create_model("resnet18_se", num_classes=7), weights)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet19", {}, "unknown model 'resnet19'; did you mean 'resnet1"),
        ("resnet18_sse", {}, "did you mean 'resnet18_se'"),
        ("resnet18_se", {"attention_stages": (5,)}, "attention_stages: there is no 5; accepted: 1 to 4"),
        ("resnet50_se", {"attention_blocks": (7,)}, "attention_blocks: there is no 7; accepted: 1 to 6"),
        (
            "resnet50_se",
            {"attention_blocks": (5,), "attention_stages": (1, 2)},
            "attention_blocks: there is no 5; accepted: 1 to 4",
        ),
        ("resnet18_se", {"image_size": 64}, "resnet18_se has no option image_size. Accepted: .*reduction, skip"),
    ],
)
def test_impossible_networks_are_refused(name, options, message):
    with pytest.raises(ModelInputError, match=message):
        create_model(name, **options)
