"""Batch norms folded into convolutions: the same numbers, and only where nobody can tell."""

import pytest
import torch
from torch import nn

from dia_analysis import capture
from dia_models import create_model
from dia_models.backbones.folding import FoldingSequential, folded, hooked

pytestmark = pytest.mark.numeric


def settle(model):
    """Batch norms as after training: no statistic, weight or bias at its first value."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3)
    return model.eval()


def sequence():
    torch.manual_seed(0)
    return settle(
        FoldingSequential(nn.Conv2d(6, 5, 3, 2, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 8, 1))
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_a_folded_convolution_by_hand(bias, affine):
    conv, norm = nn.Conv2d(1, 1, 1, bias=bias), nn.BatchNorm2d(1, eps=0, affine=affine)
    nn.init.constant_(conv.weight, 3)
    norm.running_mean.fill_(2)
    norm.running_var.fill_(4)
    if bias:
        nn.init.constant_(conv.bias, 5)
    if affine:
        nn.init.constant_(norm.weight, 10)
        nn.init.constant_(norm.bias, 7)
    weight, shift = folded(conv, norm)  # (3x + 5 - 2) / 2 * 10 + 7
    by = 10 if affine else 1
    assert weight.item() == pytest.approx(1.5 * by)
    assert shift.item() == pytest.approx((5 * bias - 2) / 2 * by + 7 * affine)


@pytest.mark.parametrize(
    "name", ["cifar_resnet20", "cifar_resnet20_dia_lstm", "cifar_preresnet20_se", "cifar_wrn52_4_dia_lstm"]
)
@pytest.mark.parametrize("options", [{}, {"skip": False}])
def test_networks_give_the_same_without_gradients_as_with(name, options):
    torch.manual_seed(0)
    model = settle(create_model(name, **options))
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        fast = model(images)
    slow = model(images).detach()
    assert slow.std() > 0
    assert not torch.equal(fast, slow)  # the other path was taken
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4 * float(slow.abs().max()))


def test_the_means_are_those_of_the_features():
    model, images = sequence(), torch.randn(2, 6, 9, 9)
    with torch.no_grad():
        output = model.run(images)
    assert output.fresh
    torch.testing.assert_close(output.means, output.features.mean((2, 3)))


def test_the_input_is_left_alone():
    model, images = sequence(), torch.randn(2, 6, 9, 9)
    before = images.clone()
    with torch.no_grad():
        model.run(images).features.add_(1)
    assert torch.equal(images, before)
    identity = FoldingSequential(nn.Identity()).eval()
    with torch.no_grad():
        assert not identity.run(images).fresh


@pytest.mark.parametrize("member", [None, 0, 1, 2])
def test_hooks_still_see_every_member(member):
    model, seen = sequence(), []
    hooked = model if member is None else model[member]
    hooked.register_forward_hook(lambda _, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        result = model.run(torch.randn(2, 6, 9, 9))
    assert len(seen) == 1
    assert member is None or not result.fresh


def test_training_and_single_members_in_training_use_batch_statistics():
    model, images = sequence(), torch.randn(2, 6, 9, 9)
    model[1].train()
    before = model[1].running_mean.clone()
    with torch.no_grad():
        assert not model.run(images).fresh
    assert not torch.equal(model[1].running_mean, before)


def test_mixed_and_double_precision_take_the_plain_path():
    model, images = sequence(), torch.randn(2, 6, 9, 9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not model.run(images).fresh
    with torch.no_grad():
        assert not model.double().run(images.double()).fresh


def test_batch_norm_without_running_statistics_is_not_folded():
    model = FoldingSequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    images = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(model(images).mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)


def test_capture_does_not_slow_the_network_down_by_keeping_it_from_reusing_memory():
    model = settle(create_model("cifar_resnet20_dia_lstm"))
    attention = model.stages[0].attention
    with torch.no_grad(), capture(model):
        model(torch.randn(1, 3, 8, 8))
        assert attention._forward_pre_hooks
        assert not hooked(attention)
    attention.register_forward_pre_hook(lambda *_: None)
    assert hooked(attention)
