"""Batch norms folded into convolutions: a copy with the same numbers; the original stays as it was."""

import copy

import pytest
import torch
from torch import nn

from dia_analysis import capture
from dia_models import ModelInputError, create_model, fuse_for_inference

pytestmark = pytest.mark.numeric
NAMES = ["cifar_resnet20", "cifar_resnet20_dia_lstm", "cifar_resnet20_cbam", "cifar_preresnet20_se",
         "cifar_preresnet20_dia_lstm", "cifar_wrn52_4_dia_lstm", "resnet18_se", "resnet50"]  # fmt: skip


def settle(model):
    """Batch norms as after training: no statistic, weight or bias at its first value."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3)
    return model.eval()


def settled(name, **options):
    torch.manual_seed(0)
    return settle(create_model(name, **options))


def norms_after_convolutions(model):
    """The batch norms that take what a convolution gives, seen in a forward pass."""
    given, found = {}, []

    def note(module, inputs, output):
        if isinstance(module, nn.Conv2d):
            given[id(output)] = output
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in given:
            found.append(module)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_a_folded_convolution_by_hand(bias, affine):
    model = settled("cifar_resnet20")
    conv, norm = nn.Conv2d(1, 1, 1, bias=bias), nn.BatchNorm2d(1, eps=0, affine=affine)
    nn.init.constant_(conv.weight, 3)
    norm.running_mean.fill_(2)
    norm.running_var.fill_(4)
    if bias:
        nn.init.constant_(conv.bias, 5)
    if affine:
        nn.init.constant_(norm.weight, 10)
        nn.init.constant_(norm.bias, 7)
    model.stem = nn.Sequential(conv, norm)
    folded, nothing = fuse_for_inference(model).stem  # (3x + 5 - 2) / 2 * 10 + 7
    by = 10 if affine else 1
    assert folded.weight.item() == pytest.approx(1.5 * by)
    assert folded.bias.item() == pytest.approx((5 * bias - 2) / 2 * by + 7 * affine)
    assert isinstance(nothing, nn.Identity)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"skip": False}])
def test_a_fused_network_gives_the_same(name, options):
    model = settled(name, **options)
    fused, images = fuse_for_inference(model), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected, found = model.double()(images.double()), fused(images)
    assert expected.std() > 0
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < 1e-4  # hundreds of sums in float32, each rounded to 6e-8 of its terms


@pytest.mark.parametrize("name", NAMES)
def test_in_float64_a_fused_network_gives_the_same_to_ten_digits(name):
    model, images = settled(name).double(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected, found = model(images), fuse_for_inference(model)(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_no_batch_norm_is_left_behind_a_convolution_of_the_backbone(name):
    model = settled(name)
    before = norms_after_convolutions(model)
    assert len(before) >= 9
    left = norms_after_convolutions(fuse_for_inference(model))
    if "cbam" in name:
        assert [norm.num_features for norm in left] == [1] * 6  # of its spatial gates
    elif "preresnet" in name or "wrn" in name:
        assert len(left) == 1  # behind the stem, whose output the first shortcut takes too
    else:
        assert not left


def test_the_original_is_untouched_and_shares_nothing_with_the_copy():
    model = settled("cifar_resnet20_dia_lstm")
    model.train()
    before = copy.deepcopy(model.state_dict())
    fused = fuse_for_inference(model)
    with torch.no_grad():
        for tensor in (*fused.parameters(), *fused.buffers()):
            tensor.zero_()
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_copy_is_for_inference_only():
    fused = fuse_for_inference(create_model("cifar_resnet20_se"))
    assert not any(module.training for module in fused.modules())
    assert not fused(torch.randn(1, 3, 16, 16)).requires_grad


def test_a_shared_module_stays_one_module():
    fused = fuse_for_inference(settled("cifar_resnet20_dia_lstm"))
    lstms = [module for module in fused.modules() if type(module).__name__ == "DIALSTM"]
    assert len(lstms) == 3


@pytest.mark.parametrize("name", ["cifar_resnet20_dia_lstm", "cifar_preresnet20_se", "resnet18_dia_se"])
def test_capture_sees_the_same_on_the_copy(name):
    model, images = settled(name), torch.randn(2, 3, 64, 64)
    records = []
    for network in (model, fuse_for_inference(model)):
        with torch.no_grad(), capture(network) as captured:
            network(images)
        records.append(captured.in_order())
    assert [(r.module, r.call) for r in records[0]] == [(r.module, r.call) for r in records[1]]
    for one, other in zip(*records, strict=True):
        torch.testing.assert_close(one.value, other.value, rtol=1e-4, atol=1e-4)


def test_hooks_see_every_member_of_the_copy():
    fused, seen = fuse_for_inference(settled("cifar_resnet20")), []
    for member in fused.stages[0].blocks[0].branch:
        member.register_forward_hook(lambda _, inputs, output: seen.append(output))
    fused(torch.randn(2, 3, 16, 16))
    assert len(seen) == len(fused.stages[0].blocks[0].branch) == 8


def test_batch_norm_without_running_statistics_is_not_folded():
    model = settled("cifar_resnet20")
    model.stem = nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16, track_running_stats=False))
    fused = fuse_for_inference(model)
    assert isinstance(fused.stem[1], nn.BatchNorm2d)
    with torch.no_grad():
        torch.testing.assert_close(
            fused.stem(torch.randn(2, 3, 4, 4)).mean((0, 2, 3)), torch.zeros(16), atol=1e-5, rtol=0
        )


def test_a_network_without_batch_norms_is_copied():
    model, images = create_model("vit_small_patch16", image_size=32).eval(), torch.randn(1, 3, 32, 32)
    assert torch.equal(fuse_for_inference(model)(images), model(images))


def test_networks_of_others_are_refused():
    with pytest.raises(ModelInputError, match="Sequential given; accepted: what create_model or load gives"):
        fuse_for_inference(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
