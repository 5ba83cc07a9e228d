"""Outputs equal those of an independent, plainly written forward pass over the same weights."""

import pytest
import torch
import torch.nn.functional as F

from dia_models import create_model
from tests.support.plain import dia_lstm, eca, linear, norm, se

pytestmark = pytest.mark.numeric


def plain_forward(x, w, blocks, gate, shared):
    x = torch.relu(norm(F.conv2d(x, w["stem.0.weight"], padding=1), w, "stem.1"))
    for stage in range(3):
        state = None
        for block in range(blocks):
            prefix = f"stages.{stage}.blocks.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            a = torch.relu(norm(F.conv2d(x, w[f"{prefix}.branch.0.weight"]), w, f"{prefix}.branch.1"))
            a = F.conv2d(a, w[f"{prefix}.branch.3.weight"], stride=stride, padding=1)
            a = torch.relu(norm(a, w, f"{prefix}.branch.4"))
            a = norm(F.conv2d(a, w[f"{prefix}.branch.6.weight"]), w, f"{prefix}.branch.7")
            if block == 0:
                x = norm(F.conv2d(x, w[f"{prefix}.shortcut.0.weight"], stride=stride), w, f"{prefix}.shortcut.1")
            if gate is not None:
                module = f"stages.{stage}.attention" + ("" if shared else f".{block}")
                h, state = gate(a.mean((2, 3)), w, module, state)
                a = a * h[:, :, None, None]
            x = torch.relu(x + a)
    return linear(x.mean((2, 3)), w, "classifier")


CASES = {
    "": (None, False),
    "_se": (se, False),
    "_eca": (eca, False),
    "_dia_se": (se, True),
    "_dia_eca": (eca, True),
    "_dia_lstm": (dia_lstm, True),
}


@pytest.mark.parametrize("attention", CASES)
@pytest.mark.parametrize("depth", [20, 29])
def test_output_equals_a_plain_forward(attention, depth):
    model = create_model(f"cifar_resnet{depth}{attention}", num_classes=5).double().eval()
    for name, buffer in model.named_buffers():  # statistics that a fresh network does not have
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    images = torch.randn(3, 3, 16, 12, dtype=torch.float64)
    gate, shared = CASES[attention]
    with torch.no_grad():
        expected = plain_forward(images, model.state_dict(), (depth - 2) // 9, gate, shared)
        assert expected.std() > 1e-3
        torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


def test_attention_matters():
    """The comparison above would not notice a gate that is always 1."""
    model = create_model("cifar_resnet20_dia_lstm").eval()
    images = torch.randn(2, 3, 16, 16)
    before = model(images)
    with torch.no_grad():
        model.stages[0].attention.cells[0].input_gates[2].bias += 1.0
    assert not torch.allclose(before, model(images))


def test_the_hidden_state_starts_anew_at_every_stage_and_forward():
    model = create_model("cifar_resnet20_dia_lstm").eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), model(images))


def test_bfloat16_and_channels_last_stay_close():
    model = create_model("cifar_resnet29_dia_lstm").eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        exact = model(images)
        last = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
        with torch.autocast("cpu", torch.bfloat16):
            short = model(images).float()
    torch.testing.assert_close(last, exact, rtol=1e-4, atol=1e-4)
    assert (short - exact).abs().max() < 0.2 * exact.abs().max()  # 29 layers that round to 8 bits
