"""Stages are found in networks of any make, from one forward pass."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from dia_analysis import AnalysisInputError
from dia_analysis.gradients.trace import find_stages, named_stages, trace
from dia_models import create_model

pytestmark = pytest.mark.numeric


def stages(model, size=64, channels=3):
    return find_stages(trace(model, torch.randn(2, channels, size, size)))


def names(found):
    return [stage.output.module for stage in found]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet20", {}),
        ("cifar_resnet20_dia_lstm", {"skip": False}),
        ("cifar_resnet20_se", {"batch_norm": False}),
        ("cifar_preresnet20_dia_cbam", {}),
        ("cifar_wrn52_4", {}),
    ],
)
def test_our_networks_have_three_stages_with_their_blocks(name, options):
    found = stages(create_model(name, **options), 8)
    assert names(found) == ["stages.0", "stages.1", "stages.2"]
    count = 8 if "wrn" in name else 2
    for number, stage in enumerate(found):
        assert [b.module for b in stage.blocks] == [f"stages.{number}.blocks.{i}" for i in range(count)]
        assert stage.output.shape[1:] == (8 >> number, 8 >> number)


def test_a_stage_of_one_block_is_its_own_block():
    found = stages(create_model("cifar_resnet11_dia_se"), 16)
    assert [[b.module for b in stage.blocks] for stage in found] == [["stages.0"], ["stages.1"], ["stages.2"]]


@pytest.mark.parametrize(
    ("make", "expected", "blocks"),
    [
        (torchvision.models.resnet18, ["layer1", "layer2", "layer3", "layer4"], [2, 2, 2, 2]),
        (
            torchvision.models.efficientnet_b0,
            ["features.1", "features.2", "features.3", "features.5", "features.7"],
            [1, 2, 2, 6, 5],
        ),
        (torchvision.models.mobilenet_v3_small, [f"features.{i}" for i in (1, 3, 8, 11)], [1, 2, 5, 3]),
        (torchvision.models.densenet121, [f"features.denseblock{i}" for i in (1, 2, 3, 4)], [6, 12, 24, 16]),
        (torchvision.models.shufflenet_v2_x0_5, ["stage2", "stage3", "stage4"], [4, 8, 4]),
        (lambda: flat(), ["3", "8"], [1, 1]),
        (lambda: timm.create_model("seresnet18"), ["layer1", "layer2", "layer3", "layer4"], [2, 2, 2, 2]),
        (lambda: timm.create_model("convnext_atto"), [f"stages.{i}" for i in range(4)], [2, 2, 6, 2]),
        (lambda: timm.create_model("efficientnet_b0"), [f"blocks.{i}" for i in (0, 1, 2, 4, 6)], [1, 2, 2, 6, 5]),
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64), ["blocks"], [12]),
    ],
)
def test_other_networks(make, expected, blocks):
    found = stages(make())
    assert names(found) == expected
    assert [len(stage.blocks) for stage in found] == blocks


def flat():
    """As VGG is: convolutions, ReLUs and pooling in one row. A stage ends with the last ReLU before the pooling."""
    sizes = [(3, 4), (4, 8)]
    rows = [[nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.ReLU()] for i, o in sizes]
    return nn.Sequential(*(m for row in rows for m in (*row, nn.MaxPool2d(2))), nn.Flatten(), nn.Linear(2048, 2))


class TwiceAlike(nn.Module):
    """Goes down and up again: two stages of one size, which are not one."""

    def __init__(self):
        super().__init__()
        self.down, self.up = (nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)) for _ in range(2))
        self.middle = nn.Sequential(nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 1))
        self.scale = nn.Upsample(scale_factor=2)

    def forward(self, x):
        return self.up(self.scale(self.middle(self.down(x)))).mean((2, 3))


def test_a_size_that_comes_back_is_another_stage():
    assert names(stages(TwiceAlike(), 8, 2)) == ["down", "middle", "up"]


class Repeated(nn.Module):
    """One module that runs three times."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        for _ in range(3):
            x = self.layer(x)
        return x.mean((2, 3))


def test_each_call_of_a_shared_module_is_an_output():
    model = Repeated()
    root = trace(model, torch.randn(2, 2, 4, 4))
    assert [stage.output.key for stage in named_stages(root, model, "layer")] == [("layer", i) for i in range(3)]
    assert [stage.output.key for stage in find_stages(root)] == [("layer", 2)]


def test_of_named_modules_inside_one_another_the_outermost_count():
    model = torchvision.models.resnet18()
    root = trace(model, torch.randn(1, 3, 32, 32))
    found = named_stages(root, model, "layer*")
    assert names(found) == ["layer1", "layer2", "layer3", "layer4"]
    assert [b.module for b in found[1].blocks] == ["layer2.0", "layer2.1"]


def test_points_that_cannot_be_used_are_named():
    model = Repeated()
    model.idle = nn.Conv2d(2, 2, 1)
    root = trace(model, torch.randn(2, 2, 4, 4))
    with pytest.raises(AnalysisInputError, match="nothing matches 'layers'"):
        named_stages(root, model, "layers")
    with pytest.raises(AnalysisInputError, match="idle never ran"):
        named_stages(root, model, "idle")
    with pytest.raises(AnalysisInputError, match="no stage was found"):
        stages(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), 2)


def test_tracing_leaves_the_network_as_it_was():
    model = create_model("cifar_resnet20_se")
    model.stages[1].eval()
    modes = [m.training for m in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    trace(model, torch.zeros(1, 3, 8, 8))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Normalize(nn.Module):
    def forward(self, x):
        return (x - 0.5) / 0.25


class Held(nn.Module):
    """Keeps a network as `model`, and gives what `answer` makes of its output."""

    def __init__(self, model, answer=lambda output: output):
        super().__init__()
        self.model, self.answer = model, answer

    def forward(self, x):
        return self.answer(self.model(x))


def lightning_module(model):
    from lightning import LightningModule

    class Lit(LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x)

    return Lit()


def headless():
    model = torchvision.models.resnet18()
    return nn.Sequential(*list(model.children())[:-2])


def with_neck():
    """A backbone and a neck of one size in one encoder: no size shows itself just inside the encoder."""
    return nn.Sequential(Held(headless()), nn.Sequential(nn.Conv2d(512, 8, 1), nn.Conv2d(8, 8, 1)))


HEAD = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
LAYERS = [f"layer{i}" for i in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("wrap", "channels", "expected"),
    [
        (lambda net: nn.Sequential(Normalize(), net), 3, [f"1.{name}" for name in LAYERS]),
        (lambda net: nn.Sequential(nn.Conv2d(1, 3, 1), Held(net)), 1, [f"1.model.{name}" for name in LAYERS]),
        (lambda net: nn.DataParallel(net), 3, [f"module.{name}" for name in LAYERS]),
        (lambda net: Held(Held(Held(net, lambda y: {"logits": y}))), 3, [f"model.model.model.{n}" for n in LAYERS]),
        (lightning_module, 3, [f"model.{name}" for name in LAYERS]),
    ],
)
def test_wrapped_networks_have_the_stages_of_what_they_wrap(wrap, channels, expected):
    found = stages(wrap(torchvision.models.resnet18()), 64, channels)
    assert names(found) == expected
    assert [len(stage.blocks) for stage in found] == [2, 2, 2, 2]


def test_a_backbone_with_a_head_is_taken_apart_whatever_it_gives():
    pooled = Held(headless(), lambda maps: maps.mean((2, 3)))
    listed = Held(headless(), lambda maps: [maps])
    for backbone, head in (
        (headless(), HEAD),
        (Held(Held(headless())), HEAD),
        (pooled, HEAD[2:]),
        (listed, (Held(nn.Identity(), lambda maps: maps[0]), *HEAD)),
    ):
        found = stages(nn.Sequential(backbone, *head))
        assert [name.rpartition(".")[2] for name in names(found)] == ["4", "5", "6", "7"]  # layer1 to layer4


def test_sizes_hidden_behind_two_modules_of_one_size_are_found():
    found = stages(nn.Sequential(Held(with_neck()), *HEAD[:2]))
    assert names(found)[:3] == [f"0.model.0.model.{i}" for i in (4, 5, 6)]
    assert len(found) == 4


def test_small_maps_inside_a_block_are_no_stage():
    """Squeeze-excitation works at 1x1 inside every block, also behind a wrapper."""
    found = stages(Held(timm.create_model("seresnet18")))
    assert names(found) == [f"model.{name}" for name in LAYERS]


def test_where_nothing_is_found_points_is_named():
    with pytest.raises(AnalysisInputError, match="no stage was found.*with points=, such as 'layer") as caught:
        stages(Held(nn.Sequential(nn.Flatten(), nn.Linear(12, 2))), 2)
    assert caught.value.argument == "points"
    assert len(str(caught.value)) <= 300
