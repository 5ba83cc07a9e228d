"""What gates see and what blocks put out, found by what the network does: against hooks placed by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from dia_analysis import measure_correlation
from dia_analysis.correlation.controls import with_controls
from dia_models import create_model
from tests.support.gates import of_maps

pytestmark = pytest.mark.numeric


class Block(nn.Module):
    """A residual block with a gate of channels, written out; `inside` puts a convolution after the gate."""

    def __init__(self, inside=False):
        super().__init__()
        self.before, self.norm = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.squeeze, self.act = nn.Linear(6, 6), nn.ReLU()
        self.after = nn.Conv2d(6, 6, 1) if inside else nn.Identity()

    def forward(self, x):
        y = self.norm(self.before(x))
        y = y * self.squeeze(y.mean((2, 3))).sigmoid()[:, :, None, None]
        return self.act(x + self.after(y))


def found(network, images):
    batches = list(images.split(4))
    return with_controls(measure_correlation(network, batches), network, batches)


def by_hand(modules, network, images):
    """Mean r over images and pairs between what modules put out, pooled."""
    outputs = []
    hooks = [module.register_forward_hook(lambda _, __, out: outputs.append(out.mean((2, 3)))) for module in modules]
    network.eval()(images)
    for hook in hooks:
        hook.remove()
    maps = torch.stack(outputs, 1).detach().double().numpy()
    upper = np.triu_indices(len(modules), 1)
    return np.mean([np.corrcoef(image)[upper] for image in maps])


def test_they_are_the_pooled_features_before_the_gate_and_after_the_sum():
    network, images = nn.Sequential(*(Block() for _ in range(3))), torch.randn(8, 6, 8, 8)
    controls = found(network, images).controls
    expected = by_hand([block.norm for block in network], network, images)
    assert controls.inputs[1].mean_r == pytest.approx(expected, abs=1e-5)
    expected = by_hand([block.act for block in network], network, images)
    assert controls.outputs[1].mean_r == pytest.approx(expected, abs=1e-5)


def test_a_gate_inside_a_block_has_the_blocks_output_too():
    network = nn.Sequential(*(Block(inside=True) for _ in range(2)))
    controls = found(network, torch.randn(8, 6, 8, 8)).controls
    assert controls.outputs[1].layers == (("0.act", 0), ("1.act", 0))


def test_what_no_module_of_its_own_puts_out_is_left_out():
    block = Block()
    controls = found(nn.Sequential(block, block), torch.randn(8, 6, 8, 8)).controls  # each module runs twice
    assert (controls.inputs, controls.outputs) == ({}, {})


def test_they_are_none_where_they_were_not_asked_for():
    assert of_maps(torch.randn(4, 2, 6)).controls is None


def test_blocks_that_add_their_shortcut_to_a_second_gates_product_are_found():
    torch.manual_seed(0)
    model, batches = create_model("cifar_resnet20_cbam").eval(), [torch.randn(4, 3, 32, 32)]
    controls = with_controls(measure_correlation(model, batches), model, batches).controls
    outputs = [module for stage in controls.outputs.values() for module, _ in stage.layers]
    assert outputs == [f"stages.{stage}.blocks.{block}.output" for stage in range(3) for block in range(2)]
