"""Attention gates are found by structure and name; modules are chosen by pattern."""

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
    match_points,
    measure_correlation,
    write_store,
)
from dia_models import create_model


@pytest.mark.parametrize(
    ("model", "count", "example"),
    [
        (lambda: create_model("cifar_resnet29_se"), 9, "stages.0.attention.0.gate"),
        (lambda: create_model("cifar_resnet29_dia_lstm"), 3, "stages.2.attention.gate"),
        (lambda: torchvision.models.mobilenet_v3_small(), 9, "features.1.block.1.scale_activation"),
        (lambda: torchvision.models.efficientnet_b0(), 16, "features.1.0.block.1.scale_activation"),
        (lambda: timm.create_model("seresnet18"), 8, "layer1.0.se.gate"),
        (lambda: timm.create_model("ecaresnet26t"), 8, "layer1.0.se.gate"),
        (
            lambda: timm.create_model("resnet18", block_args={"attn_layer": "cbam"}),
            16,
            "layer1.0.se.spatial.gate",
        ),
        (lambda: timm.create_model("efficientnet_b0"), 16, "blocks.0.0.se.gate"),
    ],
)
def test_gates_are_found_and_run(model, count, example):
    model = model()
    points = find_points(model)
    assert len(points) == count
    assert example in points
    with capture(model.eval()) as records, torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert {name for name, _ in records} == set(points)


def test_a_gate_with_children_or_a_linear_gate_is_no_attention_gate():
    model = nn.Module()
    model.a, model.b = nn.Module(), nn.Module()
    model.a.gate, model.b.gate = nn.Sequential(nn.Sigmoid()), nn.Linear(2, 2)
    with pytest.raises(AnalysisInputError, match="no attention gate was found in Module.*Its modules: a, a.gate"):
        find_points(model)


class Idle(nn.Module):
    """Attention with a gate that its forward leaves out, as timm's GlobalContext has."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"gate": nn.Sigmoid()}) for _ in range(5))

    def forward(self, x):
        return x


def test_gates_that_never_run_are_named_with_what_to_do_by_every_analysis(tmp_path):
    message = (
        r"^blocks.0.gate, blocks.1.gate, blocks.2.gate and 2 more never ran: the network does not use them in its "
        "forward pass; name as points the modules whose outputs multiply its features$"
    )
    images = torch.randn(2, 3, 8, 8)
    with pytest.raises(AnalysisInputError, match=message):
        measure_correlation(Idle(), [images])
    with pytest.raises(AnalysisInputError, match=message):
        write_store(tmp_path / "s.zarr", Idle(), lambda rows: [(images, rows)], ImageList(("a", "b")))
    assert not (tmp_path / "s.zarr").exists()


def test_patterns_match_in_network_order_and_across_dots():
    model = create_model("cifar_resnet20_se")
    assert match_points(model, ["stages.1*gate", "stages.0.attention.?.gate"]) == (
        "stages.0.attention.0.gate",
        "stages.0.attention.1.gate",
        "stages.1.attention.0.gate",
        "stages.1.attention.1.gate",
    )


def test_a_module_with_two_names_is_found_by_either_and_given_once():
    shared = nn.Sigmoid()
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert match_points(model, "2") == ("0",)
    assert match_points(model, ["0", "2"]) == ("0",)


def test_a_pattern_that_matches_nothing_shows_what_there_is():
    model = create_model("cifar_resnet20_se")
    with pytest.raises(AnalysisInputError, match="Did you mean 'stages.0.attention.0.gate'") as caught:
        match_points(model, "stages.0.attention.0.gat")
    assert caught.value.argument == "points"
    with pytest.raises(AnalysisInputError, match="no module matches 'layer\\*'.*gates: stages.0.attention.0.gate"):
        match_points(model, ["*.gate", "layer*"])
