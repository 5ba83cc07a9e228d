"""The other residual backbones and the ablation switches: published counts, and independent plain forwards."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dia_models import ModelInputError, create_model, list_models
from dia_models.attention import attention_names

pytestmark = pytest.mark.numeric

COUNTS = {  # 100 classes
    ("cifar_preresnet164", ()): 1_726_388,
    ("cifar_preresnet164_dia_lstm", ()): 1_961_364,
    ("cifar_wrn52_4", ()): 12_072_500,
    ("cifar_wrn52_4_dia_lstm", ()): 12_298_516,
    ("cifar_resnext101_8x32", ()): 32_138_244,
    ("cifar_resnext101_8x32_dia_lstm", ()): 33_006_020,
}
PRINTED = {  # in millions, as facts from the paper's tables and their counts have them
    ("cifar_resnet164_dia_lstm", (("cells", 3),)): 3.33,
    ("cifar_wrn52_4_se", (("reduction", 4),)): 12.421,
    ("cifar_wrn52_4_srm", ()): 12.087,
    ("cifar_wrn52_4_spa", ()): 13.019,
    ("cifar_wrn52_4_sem", (("reduction", 4),)): 12.439,
    ("cifar_wrn52_4_spem", ()): 12.087,
    ("cifar_wrn52_4_dia_lstm_light", ()): 12.108,
    ("cifar_resnext101_8x32_srm", ()): 32.178,
    ("cifar_resnext101_8x32_spa", (("reduction", 4),)): 52.954,
    ("cifar_resnext101_8x32_sem", (("reduction", 4),)): 34.092,
    ("cifar_resnext101_8x32_dia_lstm_light", ()): 32.239,
    ("cifar_resnet164_dia_lstm", (("attention_stages", (2, 3)),)): 1.935,
    ("cifar_resnet164_dia_lstm", (("attention_stages", (1, 3)),)): 1.904,
    ("cifar_resnet164_dia_lstm", (("attention_stages", (1, 2)),)): 1.780,
    ("cifar_resnet83", (("batch_norm", False),)): 0.88,
    ("cifar_resnet245", (("batch_norm", False),)): 2.53,
    ("cifar_resnet164_se", (("batch_norm", False),)): 1.91,
    ("cifar_resnet326_dia_lstm", (("batch_norm", False), ("reduction", 16))): 3.41,
}


def parameters(name, options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, num_classes=100, **dict(options)).parameters())


@pytest.mark.parametrize("key", COUNTS, ids=str)
def test_parameter_counts_are_the_published_ones(key):
    assert parameters(*key) == COUNTS[key]


@pytest.mark.parametrize("key", PRINTED, ids=str)
def test_parameter_counts_fit_to_the_printed_digit(key):
    digits = len(str(PRINTED[key]).partition(".")[2])
    assert round(parameters(*key) / 1e6, digits) == PRINTED[key]


def prepared(name, **options):
    model = create_model(name, num_classes=5, **options).double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics and weights that a fresh network does not have
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.0)
                module.bias.uniform_(-0.1, 0.3)
    return model


def check(model, images, expected):
    """Equal outputs, which differ from image to image: the input has come through."""
    assert (expected[0] - expected[1]).abs().max() > 1e-7
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-11)


def norm(x, w, prefix):
    if f"{prefix}.weight" not in w:
        return x
    mean, variance = w[f"{prefix}.running_mean"], w[f"{prefix}.running_var"]
    x = (x - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + 1e-5).sqrt()
    return x * w[f"{prefix}.weight"].view(1, -1, 1, 1) + w[f"{prefix}.bias"].view(1, -1, 1, 1)


def classified(x, w):
    return x.mean((2, 3)) @ w["classifier.weight"].T + w["classifier.bias"]


def gated(a, w, stage, state):
    """A shared SE, the simplest attention that shows whether it is where it should be."""
    if f"stages.{stage}.attention.excitation.0.weight" not in w:
        return a
    p = f"stages.{stage}.attention.excitation"
    hidden = torch.relu(a.mean((2, 3)) @ w[f"{p}.0.weight"].T + w[f"{p}.0.bias"])
    return a * torch.sigmoid(hidden @ w[f"{p}.2.weight"].T + w[f"{p}.2.bias"])[:, :, None, None]


def preresnet(x, w, blocks):
    x = F.conv2d(x, w["stem.weight"], padding=1)
    for s in range(3):
        for b in range(blocks):
            p, stride = f"stages.{s}.blocks.{b}", 2 if s and not b else 1
            a = F.conv2d(torch.relu(norm(x, w, f"{p}.branch.0")), w[f"{p}.branch.2.weight"])
            a = F.conv2d(torch.relu(norm(a, w, f"{p}.branch.3")), w[f"{p}.branch.5.weight"], stride=stride, padding=1)
            a = F.conv2d(torch.relu(norm(a, w, f"{p}.branch.6")), w[f"{p}.branch.8.weight"])
            if b == 0:
                x = F.conv2d(x, w[f"{p}.shortcut.weight"], stride=stride)
            x = x + gated(a, w, s, None)
    return classified(torch.relu(norm(x, w, "tail.0")), w)


def wrn(x, w, blocks):
    x = F.conv2d(x, w["stem.weight"], padding=1)
    for s in range(3):
        for b in range(blocks):
            p, stride = f"stages.{s}.blocks.{b}", 2 if s and not b else 1
            active = torch.relu(norm(x, w, f"{p}.prepare.0"))
            a = F.conv2d(active, w[f"{p}.branch.0.weight"], stride=stride, padding=1)
            a = F.conv2d(torch.relu(norm(a, w, f"{p}.branch.1")), w[f"{p}.branch.4.weight"], padding=1)
            if b == 0:
                x = F.conv2d(active, w[f"{p}.shortcut.weight"], stride=stride)
            x = x + gated(a, w, s, None)
    return classified(torch.relu(norm(x, w, "tail.0")), w)


def resnext(x, w, blocks):
    x = torch.relu(norm(F.conv2d(x, w["stem.0.weight"], padding=1), w, "stem.1"))
    for s in range(3):
        for b in range(blocks):
            p, stride = f"stages.{s}.blocks.{b}", 2 if s and not b else 1
            a = torch.relu(norm(F.conv2d(x, w[f"{p}.branch.0.weight"]), w, f"{p}.branch.1"))
            a = F.conv2d(a, w[f"{p}.branch.3.weight"], stride=stride, padding=1, groups=8)
            a = F.conv2d(torch.relu(norm(a, w, f"{p}.branch.4")), w[f"{p}.branch.6.weight"])
            if b == 0:
                x = norm(F.conv2d(x, w[f"{p}.shortcut.0.weight"], stride=stride), w, f"{p}.shortcut.1")
            x = torch.relu(x + gated(norm(a, w, f"{p}.branch.7"), w, s, None))
    return classified(x, w)


@pytest.mark.parametrize(
    ("name", "plain", "blocks"),
    [("cifar_preresnet29", preresnet, 3), ("cifar_wrn52_4", wrn, 8), ("cifar_resnext101_8x32", resnext, 11)],
)
@pytest.mark.parametrize("attention", ["", "_dia_se"])
def test_output_equals_a_plain_forward(name, plain, blocks, attention):
    model = prepared(name + attention)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(images, model.state_dict(), blocks)
    check(model, images, expected)


def resnet(x, w, blocks, skip, connected):
    x = torch.relu(norm(F.conv2d(x, w["stem.0.weight"], padding=1), w, "stem.1"))
    for s in range(3):
        for b in range(blocks):
            p, stride = f"stages.{s}.blocks.{b}", 2 if s and not b else 1
            convolutions = [k for k in w if k.startswith(f"{p}.branch") and w[k].ndim == 4]
            a = x
            for k, key in enumerate(convolutions):
                kernel = w[key].shape[2]
                a = F.conv2d(a, w[key], stride=stride if kernel == 3 else 1, padding=kernel // 2)
                index = int(key.split(".")[5])
                a = norm(a, w, f"{p}.branch.{index + 1}")
                a = torch.relu(a) if k < 2 else a
            if connected(s + 1, b + 1):
                a = gated(a, w, s, None)
            if skip and b == 0:
                x = norm(F.conv2d(x, w[f"{p}.shortcut.0.weight"], stride=stride), w, f"{p}.shortcut.1")
            x = torch.relu(a + x) if skip else torch.relu(a)
    return classified(x, w)


def everywhere(stage, block):
    return True


@pytest.mark.parametrize(
    ("options", "connected"),
    [
        ({"skip": False}, everywhere),
        ({"batch_norm": False}, everywhere),
        ({"skip": False, "batch_norm": False}, everywhere),
        ({"attention_stages": (1, 3)}, lambda stage, block: stage != 2),
        ({"attention_blocks": (2,)}, lambda stage, block: block == 2),
        ({"attention_blocks": (1, 3), "attention_stages": (2,)}, lambda stage, block: stage == 2 and block != 2),
    ],
)
def test_ablations_equal_a_plain_forward(options, connected):
    model = prepared("cifar_resnet29_dia_se", **options)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = resnet(images, model.state_dict(), 3, options.get("skip", True), connected)
    check(model, images, expected)


def test_a_block_without_attention_leaves_the_lstms_state_alone():
    model = create_model("cifar_resnet38_dia_lstm", attention_blocks=(1, 4)).eval()
    states = []
    attention = model.stages[0].attention
    attention.register_forward_hook(lambda _, args, output: states.append((args[2], output[1])))
    model(torch.randn(2, 3, 16, 16))
    assert [before is None for before, _ in states] == [True, False]
    assert states[1][0] is states[0][1]


def test_without_batch_norm_only_the_shortcuts_keep_theirs():
    model = create_model("cifar_resnet29", batch_norm=False)
    norms = [name for name, m in model.named_modules() if "BatchNorm" in type(m).__name__]
    assert norms == [f"stages.{stage}.blocks.0.shortcut.1" for stage in range(3)]


@pytest.mark.parametrize("backbone", ["cifar_preresnet20", "cifar_wrn52_4", "cifar_resnext101_8x32"])
@pytest.mark.parametrize("options", [{}, {"skip": False}, {"batch_norm": False}])
def test_every_backbone_runs_with_every_switch_on_grey_images(backbone, options):
    model = create_model(f"{backbone}_dia_lstm", in_channels=1, **options).eval()
    assert model(torch.randn(1, 1, 8, 9)).isfinite().all()


def test_every_attention_is_listed_on_every_backbone():
    names = set(list_models())
    for backbone in ("cifar_resnet164", "cifar_preresnet164", "cifar_wrn52_4", "cifar_resnext101_8x32"):
        assert {backbone, *(f"{backbone}_{a}" for a in attention_names())} <= names


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar_resnet29_se", {"attention_stages": (4,)}, "attention_stages: there is no 4; accepted: 1 to 3"),
        ("cifar_resnet29_se", {"attention_blocks": (0,)}, "attention_blocks: there is no 0; accepted: 1 to 3"),
        ("cifar_resnet29", {"attention_blocks": (1,)}, "attention_blocks was given, but the network has no attention"),
        ("cifar_resnet29", {"attention_blocks": 1}, "attention_blocks must be a list of whole numbers, not 1"),
        ("cifar_resnet29", {"skip": 0}, "skip must be true or false, not 0"),
        ("cifar_preresnet163", {}, "cifar_preresnet163: the depth must be 9n \\+ 2"),
        ("cifar_wrn28_10", {}, "unknown model 'cifar_wrn28_10'"),
    ],
)
def test_impossible_networks_are_refused(name, options, message):
    with pytest.raises(ModelInputError, match=message):
        create_model(name, **options)
