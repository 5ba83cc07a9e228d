"""Figures of the parts of r: what is drawn is what was measured."""

import numpy as np
import pytest
import torch

import figures
from dia_analysis.correlation.across import measure_across
from tests.support.gates import Gates, of_maps


def mixed(layers=3, images=12):
    common = torch.rand(1, 1, 8) + 0.3 * torch.randn(images, 1, 8)
    return of_maps(common + 0.1 * torch.randn(images, layers, 8), 4)


def test_bars_end_at_the_static_part_and_at_pooled_r():
    result = mixed()
    bars, dots = figures.correlation_parts({"trained": result}).axes
    numbers = result.stages[0].readings.numbers
    heights = [patch.get_height() for patch in bars.patches if np.isfinite(patch.get_x()) and patch.get_height()]
    parts = [numbers[name].value for name in ("r_from_static", "r_from_image")]
    assert heights == pytest.approx(parts)
    assert bars.patches[1].get_y() == pytest.approx(parts[0])
    drawn = {line.get_label(): line.get_ydata()[0] for line in dots.lines if line.get_marker() != "None"}
    assert drawn["CKA"] == pytest.approx(numbers["cka"].value)
    assert drawn["r of deviations"] == pytest.approx(numbers["mean_r_image"].value)
    assert drawn["|r| by channel"] == pytest.approx(numbers["mean_abs_r_channel"].value)


def test_networks_stand_side_by_side_and_what_is_undefined_is_left_out():
    flat = of_maps(torch.rand(1, 3, 8).expand(6, -1, -1).contiguous())
    _, dots = figures.correlation_parts({"trained": mixed(), "before": flat}).axes
    assert [label.get_text() for label in dots.get_xticklabels()] == ["trained", "before"]


def test_the_profile_is_mean_r_by_distance():
    result = mixed(4)
    (ax,) = figures.distance_profile({"trained": result}).axes
    expected = [each.value for each in result.stages[0].readings.distances.means["mean_r"]]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected)
    assert ax.get_xlabel() == "Distance (layers)"


def test_stripes_are_the_first_images_maps_of_three_layers():
    result = mixed(5, images=70)
    axes = [ax for ax in figures.stripes(result).axes if ax.get_images()]
    assert [ax.get_title().partition(":")[0] for ax in axes] == ["layer 1", "layer 3", "layer 5"]
    np.testing.assert_allclose(axes[1].get_images()[0].get_array(), result.stages[0].stripes[:, 2])
    assert result.stages[0].stripes.shape == (64, 5, 8)


def test_the_matrix_between_networks_is_drawn():
    maps = torch.randn(9, 2, 8)
    found = measure_across(("a", Gates(2)), ("b", Gates(3)), (maps.split(4), torch.randn(9, 3, 8).split(4)))
    ax = figures.across_networks(found).axes[0]
    np.testing.assert_allclose(ax.get_images()[0].get_array(), found.matrix)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Layer of b", "Layer of a")


@pytest.mark.parametrize("draw", [figures.correlation_parts, figures.distance_profile])
def test_without_a_pair_there_is_nothing_to_draw(draw):
    with pytest.raises(ValueError, match="no stage has"):
        draw({"one": of_maps(torch.randn(5, 1, 8))})


def test_stripes_take_two_images():
    with pytest.raises(ValueError, match="channel attention on two images"):
        figures.stripes(of_maps(torch.randn(1, 2, 8)))


def test_stripes_of_a_network_that_has_diverged_are_empty():
    (ax, *_) = figures.stripes(of_maps(torch.full((3, 1, 8), torch.nan))).axes
    assert np.isnan(ax.get_images()[0].get_array().filled(np.nan)).all()
