"""Maps replaced at their products: nothing else changes, and nothing stays behind."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dia_analysis import AnalysisInputError
from dia_analysis.probes.replacing import replacing
from dia_models import create_model

pytestmark = pytest.mark.numeric
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Functional(nn.Module):
    """Gates that no module puts out, written so that the channel axis is moved and the gate is expanded."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.spatial = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Conv2d(4, 1, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x)
        x = x * torch.sigmoid(self.fc(x.mean((2, 3)))).view(*x.shape[:2], 1, 1).expand_as(x)
        x = x.permute(0, 2, 3, 1) * torch.sigmoid(self.spatial(x)).permute(0, 2, 3, 1)
        return self.head(x.mean((1, 2)))


class Tokens(nn.Module):
    """Self-attention of two heads, fused or not; `windows` of four tokens each if it is asked."""

    def __init__(self, fused, windows=1):
        super().__init__()
        self.fused, self.windows = fused, windows
        self.patch, self.qkv, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24), nn.Linear(8, 2)

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        batch, tokens, _ = x.shape
        parts = x.reshape(batch * self.windows, tokens // self.windows, 8)
        q, k, v = self.qkv(parts).reshape(*parts.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v) if self.fused else (q @ k.mT * 0.5).softmax(-1) @ v
        return self.head(x.mT.reshape(batch, tokens, 8).mean(1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: create_model("cifar_resnet11_se", num_classes=3),
        lambda: create_model("cifar_resnet11_cbam", num_classes=3),
        lambda: create_model("cifar_resnet20_dia_lstm", num_classes=3),
        Functional,
        lambda: Tokens(False),
        lambda: Tokens(False, 4),
    ],
    ids=["se", "cbam", "dia-lstm", "functional", "self-attention", "windows"],
)
def test_a_map_replaced_by_its_own_value_changes_nothing_to_the_bit(make):
    model, seen = make().eval(), []
    with torch.no_grad():
        expected = model(IMAGES)
        with replacing(model, lambda point, value: seen.append(point) or value.clone()):
            same = model(IMAGES)
        with replacing(model, lambda point, value: 0.5 * value):
            other = model(IMAGES)
    assert seen
    assert torch.equal(same, expected)
    assert not torch.allclose(other, expected)
    assert torch.equal(model(IMAGES), expected)


def test_only_the_chosen_product_changes():
    model = Functional().eval()
    features = model.conv(IMAGES)
    gate = torch.sigmoid(model.fc(features.mean((2, 3))))[:, :, None, None]
    new = torch.linspace(0, 1, 4)
    with torch.no_grad(), replacing(model, lambda _, value: new.expand(3, 4).reshape(value.shape), ":gate"):
        found = model(IMAGES)
    scaled = features * new[:, None, None]
    expected = model.head((scaled * torch.sigmoid(model.spatial(scaled))).mean((2, 3)))
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found, model.head((features * gate).mean((2, 3))), atol=1e-3)


def test_a_recurrent_cell_keeps_its_untouched_value_until_the_next_layer():
    model = create_model("cifar_resnet29_dia_lstm", num_classes=3).eval()
    inputs = {False: [], True: []}
    replaced = False
    cells = [module for module in model.modules() if type(module).__name__ == "LSTMCell"]
    for cell in cells:
        cell.register_forward_pre_hook(lambda _, args: inputs[replaced].append([a.clone() for a in _tensors(args)]))

    def halve(point, value):
        return value / 2 if point.call == 1 and replaced else None

    with torch.no_grad(), replacing(model, halve):
        model(IMAGES)
        inputs[False].clear()
        model(IMAGES)
        replaced = True
        model(IMAGES)
    per_stage = len(inputs[True]) // len(cells)
    assert len(inputs[True]) == len(inputs[False]) == 9
    for call in range(2):  # the first stage: up to the replaced call its inputs are equal, state included
        assert all(map(torch.equal, inputs[True][call], inputs[False][call]))
    later, before = inputs[True][2], inputs[False][2]
    assert not torch.equal(later[0], before[0])
    assert any(map(torch.equal, later[1:], before[1:]))  # h and c of the replaced call, as the network made them
    assert per_stage == 3


def _tensors(args):
    return [
        leaf for a in args for leaf in (a if isinstance(a, tuple | list) else [a]) if isinstance(leaf, torch.Tensor)
    ]


@pytest.mark.parametrize("windows", [1, 4])
def test_fused_attention_adds_up_its_values_by_the_weights_given(windows):
    fused, plain = Tokens(True, windows).eval(), Tokens(False, windows).eval()
    plain.load_state_dict(fused.state_dict())
    shapes = []

    def turn(_, value):
        shapes.append(value.shape)
        return value.roll(1, -1)

    outputs = []
    for model in (fused, plain):
        with torch.no_grad(), replacing(model, turn):
            outputs.append(model(IMAGES))
    assert shapes[0] == shapes[1] == ((3, 2, 16, 16) if windows == 1 else (3, 4, 2, 4, 4))
    assert torch.allclose(*outputs, atol=1e-6)
    assert not torch.allclose(outputs[0], fused(IMAGES), atol=1e-4)


def test_nothing_stays_behind_on_an_error():
    model = Functional().eval()
    expected = model(IMAGES)

    def fail(_, __):
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"), replacing(model, fail):
        model(IMAGES)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(model(IMAGES), expected)


def test_a_map_of_another_shape_is_refused():
    model = Functional().eval()
    expected = r":gate was given a map of \(3, 2, 1, 1\); its maps are \(3, 4, 1, 1\)"
    with pytest.raises(AnalysisInputError, match=expected), replacing(model, lambda _, value: value[:, :2], ":gate"):
        model(IMAGES)


def test_modules_that_are_no_maps_are_refused():
    model = Functional().eval()
    refused = pytest.raises(AnalysisInputError, match="conv is no attention map that multiplies")
    with refused, replacing(model, lambda _, value: value, "conv"):
        model(IMAGES)
