"""Channel numbers mean the same where products go into one stream channel by channel, or one module makes the gates."""

import pytest
import torch
from torch import nn

from dia_analysis import find_points
from dia_analysis.probes.alignment import aligned_layers
from dia_analysis.probes.graph import is_watched
from dia_models import create_model

pytestmark = pytest.mark.numeric


class Block(nn.Module):
    """A gated branch beside a shortcut; `after` stands between the product and the sum."""

    def __init__(self, after, in_place=False):
        super().__init__()
        self.conv, self.fc, self.after = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 4), after
        self.in_place = in_place

    def forward(self, x):
        branch = self.conv(x)
        branch = self.after(branch * torch.sigmoid(self.fc(branch.mean((2, 3))))[:, :, None, None])
        if self.in_place:
            branch += x
            return branch.relu_()
        return (x + branch).relu()


def aligned(model):
    images = torch.randn(2, 4, 6, 6)
    model.eval()
    return aligned_layers(model, images, [(point.name, point.call) for point in find_points(model, images)])


@pytest.mark.parametrize(
    ("after", "same"),
    [
        (nn.Identity, True),
        (lambda: nn.BatchNorm2d(4), True),
        (lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(), nn.GELU()), True),
        (lambda: nn.Conv2d(4, 4, 1), False),  # as in inverted residual blocks
        (lambda: nn.ChannelShuffle(2), False),
    ],
)
def test_what_lies_between_the_product_and_the_sum_decides(after, same):
    found = aligned(nn.Sequential(Block(after()), Block(after(), in_place=True)))
    assert found.tolist() == [[True, same], [same, True]]


def test_a_layer_that_mixes_channels_between_blocks_parts_them():
    found = aligned(nn.Sequential(Block(nn.Identity()), nn.Conv2d(4, 4, 1), Block(nn.Identity())))
    assert found.tolist() == [[True, False], [False, True]]


def test_calls_of_one_shared_module_are_aligned_and_stages_are_not():
    model = create_model("cifar_resnet20_dia_lstm", num_classes=3).eval()
    images = torch.randn(2, 3, 8, 8)
    layers = [(point.name, point.call) for point in find_points(model, images)]
    assert aligned_layers(model, images, layers).tolist() == torch.block_diag(*[torch.ones(2, 2)] * 3).bool().tolist()


def test_layers_of_a_stage_that_add_to_one_shortcut_are_aligned():
    model = create_model("cifar_resnet20_se", num_classes=3).eval()
    images = torch.randn(2, 3, 8, 8)
    layers = [(point.name, point.call) for point in find_points(model, images)]
    assert aligned_layers(model, images, layers).tolist() == torch.block_diag(*[torch.ones(2, 2)] * 3).bool().tolist()


def test_hooks_that_count_images_can_tell_its_passes_from_others():
    model, counted = nn.Sequential(Block(nn.Identity()), Block(nn.Identity())), []
    model.register_forward_hook(lambda *_: counted.append(is_watched()))
    images = torch.randn(2, 4, 5, 5)
    aligned_layers(model, images, [(point.name, point.call) for point in find_points(model, images)])
    assert len(counted) > 2
    assert all(counted)
    model(images)
    assert not counted[-1]


def test_a_spatial_gate_after_the_channel_gate_leaves_channels_what_they_are():
    model = create_model("cifar_resnet20_cbam").eval()
    images = torch.randn(2, 3, 32, 32)
    layers = [(point.name, point.call) for point in find_points(model, images) if point.kind == "channel"]
    assert aligned_layers(model, images, layers).tolist() == torch.block_diag(*[torch.ones(2, 2)] * 3).bool().tolist()
