"""One tiny network per topology; and capturing leaves nothing behind."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dia_analysis import AnalysisInputError, capture
from dia_models import create_model

pytestmark = pytest.mark.numeric


class Scale(nn.Module):
    """Multiplies by a gate of its features' means."""

    def __init__(self, bias=0.0):
        super().__init__()
        self.layer, self.gate = nn.Linear(2, 2), nn.Sigmoid()
        nn.init.constant_(self.layer.bias, bias)

    def forward(self, x):
        return x * self.gate(self.layer(x.mean((2, 3))))[:, :, None, None]


class Shared(nn.Module):
    """Calls one Scale three times."""

    def __init__(self):
        super().__init__()
        self.scale = Scale()

    def forward(self, x):
        for _ in range(3):
            x = self.scale(x)
        return x


class Unused(nn.Module):
    """Holds a Scale that it never calls."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = Scale(), Scale()

    def forward(self, x):
        return self.used(x)


class Recursive(nn.Module):
    """Calls itself `depth` times."""

    def __init__(self):
        super().__init__()
        self.scale = Scale()

    def forward(self, x, depth=2):
        x = self.scale(x)
        return x if depth == 0 else self(x, depth - 1)


class InPlace(nn.Module):
    """Changes the gate after it was used."""

    def __init__(self):
        super().__init__()
        self.layer, self.gate = nn.Linear(2, 2), nn.Sigmoid()

    def forward(self, x):
        gate = self.gate(self.layer(x.mean((2, 3))))[:, :, None, None]
        x = x * gate
        gate.zero_()
        return x


class Failing(nn.Module):
    """Fails after its gate has run, in every pass but the first."""

    def __init__(self):
        super().__init__()
        self.scale, self.fails = Scale(), False

    def forward(self, x):
        x = self.scale(x)
        if self.fails:
            raise RuntimeError("on purpose")
        return x


class Checkpointed(nn.Module):
    """Runs its Scale again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.scale = Scale()

    def forward(self, x):
        return checkpoint(self.scale, x, use_reentrant=False)


class Sometimes(nn.Module):
    """Gates bright images only."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        if x.mean() > 0:
            x = x * 2
        return x * self.layer(x.mean((2, 3))).sigmoid()[:, :, None, None]


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


def ones(images=2):
    return torch.ones(images, 2, 3, 3)


def gate_of(scale, x):
    return torch.sigmoid(x.mean((2, 3)) @ scale.layer.weight.T + scale.layer.bias)


def test_a_module_called_three_times_gives_three_records():
    model, x = Shared(), torch.randn(2, 2, 3, 3)
    with capture(model) as records, torch.no_grad():
        output = model(x)
        for call in range(3):
            torch.testing.assert_close(records["scale.gate", call], gate_of(model.scale, x))
            x = x * records["scale.gate", call][:, :, None, None]
    assert list(records) == [("scale.gate", 0), ("scale.gate", 1), ("scale.gate", 2)]
    assert torch.equal(x, output)


def test_a_module_under_three_names_gives_three_records_under_the_first():
    scale = Scale()
    model = nn.Sequential(scale, scale, scale)
    with capture(model, "0.gate") as records:
        model(ones())
    assert list(records) == [("0.gate", call) for call in range(3)]
    with capture(model, "features:2") as records:
        output = model(ones())
    assert list(records) == [("0", call) for call in range(3)]
    torch.testing.assert_close(records["0", 2], output.mean((2, 3)))


def test_records_come_in_forward_order_with_feature_sizes():
    model = create_model("cifar_resnet20_dia_lstm").eval()
    with capture(model, ["*gate", "*cell_state"]) as records:
        model(torch.randn(2, 3, 16, 8))
    order = [(r.module, r.call, tuple(r.value.shape), r.feature_size) for r in records.in_order()]
    assert order[:4] == [
        ("stages.0.attention.cells.0.cell_state", 0, (2, 64), (16, 8)),
        ("stages.0.attention.gate", 0, (2, 64), (16, 8)),
        ("stages.0.attention.cells.0.cell_state", 1, (2, 64), (16, 8)),
        ("stages.0.attention.gate", 1, (2, 64), (16, 8)),
    ]
    assert order[-1] == ("stages.2.attention.gate", 1, (2, 256), (4, 2))


def test_the_record_is_what_multiplies_the_features():
    model = create_model("cifar_resnet20_se").eval()
    attention, seen = model.stages[1].attention[1], {}
    attention.register_forward_hook(
        lambda _, args, out: seen.update(branch=args[0], shortcut=args[1], sum=out[0].clone())
    )
    with capture(model) as records, torch.no_grad():
        model(torch.randn(2, 3, 16, 16))
    gate = records["stages.1.attention.1.gate", 0]
    torch.testing.assert_close(seen["sum"], seen["shortcut"] + seen["branch"] * gate[:, :, None, None])


def test_the_next_forward_pass_starts_anew():
    model = Shared()
    with capture(model) as records:
        model(ones())
        model(ones(5))
        assert len(records) == 3
        assert records["scale.gate", 2].shape == (5, 2)


def test_a_network_that_calls_itself_keeps_all_records():
    model = Recursive()
    with capture(model) as records:
        model(ones())
    assert list(records) == [("scale.gate", call) for call in range(3)]


def test_a_part_run_again_by_activation_checkpointing_is_recorded_once():
    model = Checkpointed()
    with capture(model) as records:
        model(ones().requires_grad_()).sum().backward()
    assert list(records) == [("scale.gate", 0)]


def test_a_later_change_in_place_does_not_reach_the_record():
    model = InPlace()
    with capture(model) as records, torch.no_grad():
        model(ones())
    torch.testing.assert_close(records["gate", 0], gate_of(model, ones()))


def test_points_that_never_run_are_an_error_that_names_them():
    model = Unused()
    with pytest.raises(AnalysisInputError, match=r"^idle.gate never ran"), capture(model, ["used.*", "idle.gate"]):
        model(ones())
    with (
        pytest.raises(AnalysisInputError, match=r"\*.gate: the network was not run"),
        capture(model, "*.gate"),
    ):
        pass
    with capture(model) as records:
        model(ones())
    assert list(records) == [("used.gate", 0)]
    assert hooks(model) == 0


def test_a_network_that_does_something_else_in_another_pass_is_refused_or_right():
    model = Sometimes()
    with capture(model) as records, torch.no_grad():
        model(-ones())
        with pytest.raises(AnalysisInputError, match="the network runs addmm where it ran mul"):
            model(ones())
    assert len(records) <= 1
    assert hooks(model) == 0


def test_an_output_that_is_no_tensor_is_an_error():
    model = nn.Sequential(nn.LSTM(2, 2))
    with pytest.raises(AnalysisInputError, match="0 gives a tuple, not a tensor"), capture(model, "0"):
        model(torch.randn(1, 2))
    assert hooks(model) == 0


def test_hooks_are_gone_after_an_exception_in_forward():
    model = Failing()
    with pytest.raises(RuntimeError, match="on purpose"), capture(model) as records:
        model(ones())
        model.fails = True
        model(ones())
    assert hooks(model) == 0
    assert list(records) == [("scale.gate", 0)]


def test_hooks_are_gone_after_an_exception_during_registration(monkeypatch):
    model = Shared()

    def refuse(*args, **kwargs):
        raise RuntimeError("no hook here")

    monkeypatch.setattr(model.scale.gate, "register_forward_hook", refuse)
    with pytest.raises(RuntimeError, match="no hook here"), capture(model):
        model(ones())
    assert hooks(model) == 0


def test_hooks_are_gone_after_an_interrupt():
    model = Shared()
    with pytest.raises(KeyboardInterrupt), capture(model):
        raise KeyboardInterrupt
    assert hooks(model) == 0


def test_capturing_changes_nothing():
    model = create_model("cifar_resnet20_dia_lstm")
    model.stages[1].eval()
    model.stem[0].weight.requires_grad_(False)
    twin = copy.deepcopy(model)
    images = torch.randn(4, 3, 16, 16)

    def step(network, captured):
        torch.manual_seed(1)
        if captured:
            with capture(network):
                output = network(images)
        else:
            output = network(images)
        output.square().sum().backward()
        return output, torch.get_rng_state()

    (plain, plain_rng), (hooked, hooked_rng) = step(twin, captured=False), step(model, captured=True)
    assert torch.equal(plain, hooked)
    assert torch.equal(plain_rng, hooked_rng)
    assert [m.training for m in model.modules()] == [m.training for m in twin.modules()]
    for (name, a), (_, b) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert a.requires_grad == b.requires_grad, name
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.equal(a.grad, b.grad), name
    for (name, a), (_, b) in zip(model.state_dict().items(), twin.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert hooks(model) == 0


def test_records_hold_no_graph():
    model = Shared()
    with capture(model) as records:
        model(ones())
    assert not any(value.requires_grad for value in records.values())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler's own
@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_network_runs_uncompiled_meanwhile(whole):
    model = Shared()
    if whole:
        runner = torch.compile(model, backend="eager")
    else:
        runner = model
        model.scale.compile(backend="eager")
    expected = runner(ones())
    with capture(runner) as records:
        assert torch.equal(runner(ones()), expected)
    assert len(records) == 3
    assert hooks(model) == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated")
def test_a_scripted_network_is_refused_and_scripted_parts_are_seen_through():
    model = Shared()
    with pytest.raises(AnalysisInputError, match="is a TorchScript module"), capture(torch.jit.trace(model, ones())):
        pass
    expected = gate_of(model.scale, ones())
    model.scale = torch.jit.trace(model.scale, ones())
    with capture(model) as records, torch.no_grad():
        model(ones())
    assert list(records) == [(":gate", 0), (":gate2", 0), (":gate3", 0)]
    torch.testing.assert_close(records[":gate", 0], expected[:, :, None, None])


def test_capture_works_while_another_capture_runs():
    model = Shared()
    with capture(model) as outer, capture(model, "scale.*") as inner:
        model(ones())
    assert len(outer) == len(inner) == 3


class Whatever(nn.Module):
    """Squeeze-excitation whose module gives a dict, and whose forward changes its input in place."""

    def __init__(self):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(2, 4, 1), nn.Linear(4, 4)

    def forward(self, x):
        x.mul_(2)
        x = self.conv(x)
        gate = self.layer(x.mean((2, 3))).sigmoid()
        return {"features": [x * gate[:, :, None, None]], "name": "any"}


WAYS = {
    "float32": lambda model, x: (model, x),
    "bfloat16": lambda model, x: (model.bfloat16(), x.bfloat16()),
    "channels last": lambda model, x: (
        model.to(memory_format=torch.channels_last),
        x.to(memory_format=torch.channels_last),
    ),
    "one image": lambda model, x: (model, x[:1]),
    "training": lambda model, x: (model.train(), x),
}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_any_type_layout_and_output_gives_the_gate_that_multiplies(way, autocast):
    model, x = WAYS[way](Whatever(), torch.randn(3, 2, 4, 4))
    with torch.autocast("cpu", enabled=autocast), capture(model) as records, torch.no_grad():
        given = x.clone()
        (product,) = model(given)["features"]
        plain = model.conv(given)
    (gate,) = records.values()
    assert torch.equal(plain * gate.view(len(x), 4, 1, 1), product)
    assert torch.equal(given, x * 2)


@pytest.mark.parametrize(
    ("name", "options"),
    [("cifar_resnet20_se", {}), ("cifar_resnet20_dia_lstm", {}), ("vit_small_patch16", {"image_size": 32})],
)
def test_in_inference_mode_the_same_is_captured(name, options):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **options).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), capture(model) as plain:
        model(images)
    with torch.inference_mode(), capture(model) as quick:
        model(images)
    pairs = list(zip(plain.in_order(), quick.in_order(), strict=True))
    assert len(pairs) > 5
    assert all((one.module, one.call) == (other.module, other.call) for one, other in pairs)
    for one, other in pairs:
        torch.testing.assert_close(one.value, other.value)  # fused attention may run as another kernel
