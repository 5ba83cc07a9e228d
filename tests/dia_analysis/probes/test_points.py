"""Attention is found in networks that others wrote, whatever its modules are called; modules are chosen by pattern."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from dia_analysis import (
    AnalysisInputError,
    ImageList,
    capture,
    find_points,
    has_attention,
    measure_correlation,
    write_store,
)
from dia_analysis.probes.example import own_size
from dia_analysis.probes.points import match_modules
from dia_models import create_model


@pytest.mark.parametrize(
    ("model", "count", "example"),
    [
        (lambda: create_model("cifar_resnet29_se"), 9, "stages.0.attention.0.gate"),
        (lambda: create_model("cifar_resnet29_dia_lstm"), 9, "stages.2.attention.gate"),
        (lambda: torchvision.models.mobilenet_v3_small(), 9, "features.1.block.1.scale_activation"),
        (lambda: torchvision.models.efficientnet_b0(), 16, "features.1.0.block.1.scale_activation"),
        (lambda: timm.create_model("seresnet18"), 8, "layer1.0.se.gate"),
        (lambda: timm.create_model("legacy_seresnet18"), 8, "layer1.0.se_module.sigmoid"),
        (lambda: timm.create_model("ecaresnet26t"), 8, "layer1.0.se.gate"),
        (lambda: timm.create_model("efficientnet_b0"), 16, "blocks.0.0.se.gate"),
        (
            lambda: timm.create_model("resnet18", block_args={"attn_layer": "cbam"}),
            16,
            "layer1.0.se.spatial.gate",
        ),
    ],
)
def test_gates_are_found_and_captured(model, count, example):
    model = model().eval()
    points = find_points(model, image_size=64)
    assert len(points) == count
    assert all(point.usable for point in points)
    assert example in {point.name for point in points}
    with capture(model) as records, torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert list(records) == [(point.name, point.call) for point in points]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "convnextv2_atto", "resnet18d"])
def test_networks_without_attention_have_none(name):
    model = timm.create_model(name) if name != "mobilenet_v3_small" else torchvision.models.resnet18()
    assert find_points(model, image_size=64) == []
    assert not has_attention(model)


class Idle(nn.Module):
    """Attention with a gate that its forward leaves out, as timm's GlobalContext has."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"gate": nn.Sigmoid()}) for _ in range(5))

    def forward(self, x):
        return x


def test_without_attention_every_analysis_says_what_to_do(tmp_path):
    message = r"^Idle uses no attention that can be captured; name modules, 'features:layer\*' for their outputs"
    images = torch.randn(2, 3, 8, 8)
    with pytest.raises(AnalysisInputError, match=message):
        measure_correlation(Idle(), [images])
    with pytest.raises(AnalysisInputError, match=message):
        write_store(tmp_path / "s.zarr", Idle(), lambda rows: [(images, rows)], ImageList(("a", "b")))
    assert not (tmp_path / "s.zarr").exists()
    with pytest.raises(AnalysisInputError, match="blocks.0.gate, blocks.1.gate, blocks.2.gate and 2 more never ran"):
        measure_correlation(Idle(), [images], points="*.gate")


class Conditioned(nn.Module):
    """Modulates features by another input, and runs an operation that cannot be seen into."""

    def __init__(self):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(3, 4, 1), nn.Linear(5, 4)

    def forward(self, x, other):
        return self.conv(x) * self.layer(other)[:, :, None, None]


def test_what_is_listed_but_of_no_use_says_why():
    model = Conditioned()
    (point,) = find_points(model, (torch.randn(2, 3, 4, 4), torch.randn(2, 5)))
    assert (point.name, point.kind, point.usable) == ("layer", "conditioning", False)
    with (
        pytest.raises(AnalysisInputError, match=r"can be captured \(layer: it is made from another input"),
        capture(model),
    ):
        model(torch.randn(2, 3, 4, 4), torch.randn(2, 5))
    with pytest.raises(AnalysisInputError, match="fails on images of 2x3x64x64: .*give inputs"):
        find_points(model)


def test_features_make_layers_of_a_network_without_attention_comparable():
    model, x = torchvision.models.resnet18().eval(), torch.randn(3, 3, 32, 32)
    seen = []
    handle = model.layer2[1].register_forward_hook(lambda _, __, out: seen.append(out))
    (stage, *_) = measure_correlation(model, [x], points="features:layer2.?").stages
    handle.remove()
    assert (stage.kind, stage.channels, len(stage.layers)) == ("features", 128, 2)
    with capture(model, "features:layer2.1") as records, torch.no_grad():
        model(x)
    torch.testing.assert_close(records["layer2.1", 0], seen[-1].mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "pixels"),
    [
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32), 32),
        (lambda: timm.create_model("resnet18"), 224),
        (lambda: torchvision.models.VisionTransformer(48, 16, 1, 2, 8, 8), 48),
        (lambda: create_model("vit_small_patch16", image_size=32), 32),
    ],
)
def test_a_network_that_says_its_size_is_run_at_it(model, pixels):
    with torch.device("meta"):
        assert own_size(model()) == (pixels, pixels)


def test_patterns_match_in_network_order_and_across_dots():
    model = create_model("cifar_resnet20_se")
    assert match_modules(model, ["stages.1*gate", "stages.0.attention.?.gate"]) == (
        "stages.0.attention.0.gate",
        "stages.0.attention.1.gate",
        "stages.1.attention.0.gate",
        "stages.1.attention.1.gate",
    )


def test_a_module_with_two_names_is_found_by_either_and_given_once():
    shared = nn.Sigmoid()
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert match_modules(model, "2") == ("0",)
    assert match_modules(model, ["0", "2"]) == ("0",)


def test_a_pattern_that_matches_nothing_shows_what_there_is():
    model = create_model("cifar_resnet20_se")
    with pytest.raises(AnalysisInputError, match="Did you mean 'stages.0.attention.0.gate'") as caught:
        match_modules(model, "stages.0.attention.0.gat")
    assert caught.value.argument == "points"
    assert len(str(caught.value)) <= 300
    with pytest.raises(AnalysisInputError, match="nothing matches 'layer\\*'. .* Its modules: stem, stem.0"):
        match_modules(model, ["*.gate", "layer*"])
    with pytest.raises(AnalysisInputError, match="nothing matches 'layer\\*'"), capture(model, "layer*:gate"):
        pass
    with pytest.raises(AnalysisInputError, match=r"attention: stages.0.attention.0.gate"), capture(model, "stem:gate"):
        model(torch.randn(2, 3, 8, 8))
