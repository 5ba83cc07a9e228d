"""Figures: their structure and data, not their pixels."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from test_correlation import of_maps

import figures


def correlated(layers=3, channels=8, images=5):
    common = torch.randn(images, 1, channels)
    return of_maps(common + 0.3 * torch.randn(images, layers, channels), 2)


def test_matrices_show_each_stages_matrix_on_one_scale():
    result = correlated(5)
    axes = figures.matrices(result).axes
    (image,) = axes[0].get_images()
    np.testing.assert_allclose(image.get_array(), result.stages[0].matrix)
    assert image.get_clim() == (-1, 1)
    assert axes[0].get_title() == f"Stage 1\nmean r = {result.stages[0].mean_r:.2f}"
    assert (axes[0].get_xlabel(), axes[0].get_ylabel(), axes[-1].get_ylabel()) == (
        "Layer",
        "Layer",
        "Pearson r",
    )
    assert not axes[0].texts


def test_small_matrices_carry_their_numbers():
    result = correlated(2)
    texts = [t.get_text() for t in figures.matrices(result).axes[0].texts]
    assert texts == ["1.00", f"{result.mean_r:.2f}", f"{result.mean_r:.2f}", "1.00"]


def test_the_distribution_shows_all_results_and_the_papers_mean():
    result, other = correlated(), of_maps(torch.randn(5, 3, 8))
    figure = figures.distribution({"trained": result, "untrained": other})
    (ax,) = figure.axes
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["trained", "untrained", "paper's mean (0.85)"]
    assert ax.get_xlim() == (-1, 1)
    drawn = [p.get_data() for p in ax.patches]
    assert len(drawn) == 4
    peak = drawn[0].edges[drawn[0].values.argmax()]
    assert peak == pytest.approx(result.stages[0].median_r, abs=0.1)
    assert f"trained {result.mean_r:.2f}" in ax.texts[0].get_text()


def test_the_scatter_shows_one_point_per_channel_for_each_of_four_images():
    result = correlated(channels=8)
    (ax,) = figures.scatter(result, seed=1).axes
    assert [len(line.get_xdata()) for line in ax.lines] == [8] * 4
    first, second = (int(label.rpartition(" ")[2]) - 1 for label in (ax.get_xlabel(), ax.get_ylabel()))
    assert first < second
    np.testing.assert_allclose(ax.lines[2].get_ydata(), result.stages[0].examples[2, second])
    r = np.corrcoef(result.stages[0].examples[0, first], result.stages[0].examples[0, second])[0, 1]
    assert ax.get_title().startswith(f"Stage 1\nr = {r:.2f},")


def test_the_scatter_of_large_maps_shows_some_of_their_elements():
    result = correlated(channels=1500)
    (ax,) = figures.scatter(result, seed=1).axes
    assert [len(line.get_xdata()) for line in ax.lines] == [1000] * 4
    first = int(ax.get_xlabel().rpartition(" ")[2]) - 1
    assert set(ax.lines[0].get_xdata()) <= set(result.stages[0].examples[0, first])


def test_without_a_pair_nothing_is_drawn():
    with pytest.raises(ValueError, match="no stage has two attention layers"):
        figures.matrices(of_maps(torch.randn(3, 1, 8)))


def test_undefined_r_is_drawn_as_such():
    maps = torch.randn(4, 3, 8)
    maps[:, 1] = 0.5
    figure = figures.matrices(of_maps(maps))
    assert "–" in [t.get_text() for t in figure.axes[0].texts]
    figures.scatter(of_maps(maps))
    figures.distribution({"all": of_maps(torch.ones(3, 2, 4))})


def test_saved_figures_are_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        figures.save_figure(figures.scatter(correlated_once()), tmp_path / name)
    for suffix in (".png", ".pdf"):
        content = [(tmp_path / name).with_suffix(suffix).read_bytes() for name in ("a", "b")]
        assert content[0] == content[1]
        assert len(content[0]) > 1000


def correlated_once():
    torch.manual_seed(0)
    return correlated()


def test_results_draw_themselves():
    result = correlated()
    ax = result.plot(Figure().subplots())
    assert ax.get_xlabel() == "Pearson r between two layers"
    ax = result.stages[0].plot(Figure().subplots())
    np.testing.assert_allclose(ax.get_images()[0].get_array(), result.stages[0].matrix)
