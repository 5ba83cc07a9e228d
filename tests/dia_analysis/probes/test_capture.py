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
    """Multiplies by a gate that is its `factor`."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))
        self.gate = nn.Identity()

    def forward(self, x):
        return x * self.gate(self.factor.expand(len(x), 1))


class Shared(nn.Module):
    """Calls one Scale three times."""

    def __init__(self):
        super().__init__()
        self.scale = Scale(2)

    def forward(self, x):
        for _ in range(3):
            x = self.scale(x)
        return x


class Unused(nn.Module):
    """Holds a Scale that it never calls."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = Scale(2), Scale(3)

    def forward(self, x):
        return self.used(x)


class Recursive(nn.Module):
    """Calls itself `depth` times."""

    def __init__(self):
        super().__init__()
        self.scale = Scale(2)

    def forward(self, x, depth=2):
        x = self.scale(x)
        return x if depth == 0 else self(x, depth - 1)


class InPlace(nn.Module):
    """Changes the hooked tensor after the hook."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Identity()

    def forward(self, x):
        return torch.relu_(self.gate(x * 1))


class Failing(nn.Module):
    """Fails after its gate has run."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Identity()

    def forward(self, x):
        self.gate(x)
        raise RuntimeError("on purpose")


class Checkpointed(nn.Module):
    """Runs its Scale again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.scale = Scale(2)

    def forward(self, x):
        return checkpoint(self.scale, x, use_reentrant=False)


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


def ones():
    return torch.ones(2, 1)


def test_a_module_called_three_times_gives_three_records():
    model = Shared()
    with capture(model, "scale") as records:
        output = model(ones())
    assert list(records) == [("scale", 0), ("scale", 1), ("scale", 2)]
    assert [records["scale", call][0].item() for call in range(3)] == [2, 4, 8]
    assert torch.equal(records["scale", 2], output)


def test_a_module_under_three_names_gives_three_records_under_the_first():
    scale = Scale(2)
    model = nn.Sequential(scale, scale, scale)
    with capture(model, "2") as records:
        model(ones())
    assert [(key, value[0].item()) for key, value in records.items()] == [
        (("0", 0), 2),
        (("0", 1), 4),
        (("0", 2), 8),
    ]


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
        model(torch.full((5, 1), 10.0))
        assert len(records) == 3
        assert records["scale.gate", 2].shape == (5, 1)


def test_a_network_that_calls_itself_keeps_all_records():
    model = Recursive()
    with capture(model) as records:
        model(ones())
    assert list(records) == [("scale.gate", call) for call in range(3)]


def test_running_a_part_alone_is_recorded_too():
    model = Shared()
    with capture(model) as records:
        model.scale(ones())
    assert list(records) == [("scale.gate", 0)]


def test_a_part_run_again_by_activation_checkpointing_is_recorded_once():
    model = Checkpointed()
    with capture(model) as records:
        model(ones().requires_grad_()).sum().backward()
    assert list(records) == [("scale.gate", 0)]


def test_a_later_change_in_place_does_not_reach_the_record():
    model = InPlace()
    with capture(model) as records:
        model(torch.tensor([[-1.0, 2.0]]))
    assert records["gate", 0].tolist() == [[-1.0, 2.0]]


def test_points_that_never_run_are_an_error_that_names_them():
    model = Unused()
    with pytest.raises(AnalysisInputError, match=r"^idle.gate never ran"), capture(model):
        model(ones())
    with (
        pytest.raises(AnalysisInputError, match=r"used.gate, idle.gate never ran: the network was not run"),
        capture(model),
    ):
        pass
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
    assert hooks(model) == 0
    assert list(records) == [("gate", 0)]


def test_hooks_are_gone_after_an_exception_during_registration(monkeypatch):
    model = Unused()

    def refuse(*args, **kwargs):
        raise RuntimeError("no hook here")

    monkeypatch.setattr(model.idle.gate, "register_forward_hook", refuse)
    with pytest.raises(RuntimeError, match="no hook here"), capture(model):
        pass
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
def test_a_scripted_network_is_refused():
    model = nn.Sequential(nn.Sigmoid())
    model[0] = torch.jit.trace(nn.Sigmoid(), torch.zeros(1))
    with pytest.raises(AnalysisInputError, match="0 is a TorchScript module"), capture(model, "0"):
        pass


def test_capture_works_while_another_capture_runs():
    model = Shared()
    with capture(model) as outer, capture(model, "scale") as inner:
        model(ones())
    assert len(outer) == len(inner) == 3
