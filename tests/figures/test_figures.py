"""Figures: their structure and data, not their pixels."""

import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import figures
from dia_analysis import GradientResult, Subject, measure_correlation, measure_cost, network_gradients
from dia_analysis.results.style import STYLE, save_figure
from dia_models import create_model
from tests.support.gates import of_maps


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


def test_the_scatter_writes_no_r_of_maps_that_differ_by_rounding_alone():
    maps = 0.5 + (torch.rand(4, 2, 64) < 0.5) * 2**-24
    assert maps.unique().numel() == 2
    (ax,) = figures.scatter(of_maps(maps)).axes
    assert ax.get_title() == "Stage 1\nr = undefined, undefined, undefined, undefined"


def test_saved_figures_are_the_same_bytes_each_time(tmp_path, monkeypatch):
    monkeypatch.setitem(STYLE, "pdf.fonttype", 42)  # as users have it
    for name in ("a", "b"):
        save_figure(figures.scatter(correlated_once()), tmp_path / name)
    for suffix in (".png", ".pdf"):
        content = [(tmp_path / name).with_suffix(suffix).read_bytes() for name in ("a", "b")]
        assert content[0] == content[1]
        assert len(content[0]) > 1000


def test_saving_lays_a_figure_out_once_and_leaves_its_layout_on(tmp_path):
    figure = figures.scatter(correlated_once())
    engine, laid_out = figure.get_layout_engine(), []
    execute = engine.execute
    engine.execute = lambda drawn: (laid_out.append(drawn), execute(drawn))
    save_figure(figure, tmp_path / "figure")
    assert laid_out == [figure]
    assert figure.get_layout_engine() is engine


def correlated_once():
    torch.manual_seed(0)
    return correlated()


def test_results_draw_themselves():
    result = correlated()
    *axes, bar = result.figure().axes
    for ax, stage in zip(axes, result.stages, strict=True):
        np.testing.assert_allclose(ax.get_images()[0].get_array(), stage.matrix)
        assert ax.get_title() == f"Stage {stage.stage}\nmean r = {stage.mean_r:.2f}"
    assert bar.get_ylabel() == "Pearson r"


def test_the_anatomy_has_a_box_per_block_and_per_module_that_ran():
    models = {"individual": "cifar_resnet20_se", "shared": "cifar_resnet56_dia_se"}
    results = {k: measure_correlation(create_model(name), [torch.randn(1, 3, 8, 8)]) for k, name in models.items()}
    individual, shared = figures.attention_anatomy(results).axes
    assert (individual.get_title(loc="left"), len(individual.patches)) == ("individual", 3 * (2 + 2))
    assert (shared.get_title(loc="left"), len(shared.patches)) == ("shared", 3 * (3 + 1))  # layers 1, 2, …, 6
    texts = [text.get_text() for text in shared.texts]
    assert texts.count("6") == texts.count("…") == texts.count("6 layers, 1 module") == 3


def gradient_result(epochs=(None,), names=("plain", "lstm")):
    networks = []
    for name in names:
        model = create_model("cifar_resnet20" if name == "plain" else "cifar_resnet20_dia_lstm")
        for epoch in epochs:
            batches = [(torch.randn(4, 3, 8, 8), torch.arange(4))]
            networks.append(network_gradients(model, batches, name=name, per_block=True, epoch=epoch))
    return GradientResult(tuple(networks))


def test_gradient_distributions_show_every_network_at_every_stage():
    result = gradient_result()
    figure = figures.gradient_distributions(result)
    assert [ax.get_ylabel() for ax in figure.axes] == ["Stage 1", "Stage 2", "Stage 3"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["plain", "lstm"]
    for ax, stages in zip(figure.axes, zip(*(n.stages for n in result.networks), strict=True), strict=True):
        assert ax.get_xscale() == "log"
        drawn = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata())]
        assert drawn == [stage.magnitudes.mean for stage in stages]
        counts, edges = stages[0].magnitudes.binned(10)
        np.testing.assert_allclose(ax.patches[0].get_data().values, counts / counts.max())
        np.testing.assert_allclose(ax.patches[0].get_data().edges, 10.0**edges)
    assert not figure.axes[0].texts[0].get_text()


def test_log_axes_are_labelled_with_powers_of_ten(tmp_path):
    figure = figures.gradient_distributions(gradient_result())
    save_figure(figure, tmp_path / "figure")  # which makes the labels
    texts = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert "10⁻³" in texts
    assert all(re.fullmatch("10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", text) for text in texts)
    (ax,) = figures.gradients_along_depth(gradient_result()).axes
    ax.set_ylim(0.002, 0.009)
    ax.figure.draw_without_rendering()
    assert "4×10⁻³" in [label.get_text() for label in ax.get_yticklabels(minor=True)]


def test_zeros_and_nan_are_written_beside_the_distribution():
    model = create_model("cifar_resnet20", skip=False, batch_norm=False)
    with torch.no_grad():
        model.stages[2].blocks[0].branch[0].weight.zero_()
    dead = network_gradients(model, [(torch.randn(4, 3, 8, 8), torch.arange(4))], name="dead")
    with torch.no_grad():
        model.classifier.weight[0] = torch.nan
    broken = network_gradients(model, [(torch.randn(4, 3, 8, 8), torch.arange(4))], name="broken")
    figure = figures.gradient_distributions(GradientResult((dead, broken)))
    assert figure.axes[0].texts[0].get_text() == "dead: 100.00% zero\nbroken: 100.00% zero"
    assert figure.axes[2].texts[0].get_text() == "broken: 100.00% not finite"
    figure.draw_without_rendering()


def test_gradients_that_are_all_zero_are_drawn_as_nothing():
    model = create_model("cifar_resnet20")
    with torch.no_grad():
        model.classifier.weight.zero_()
    zero = network_gradients(model, [(torch.randn(4, 3, 8, 8), torch.arange(4))], name="zero")
    figure = figures.gradient_distributions(GradientResult((zero,)))
    figure.draw_without_rendering()
    assert figure.axes[0].texts[0].get_text() == "zero: 100.00% zero"


def test_gradients_along_depth_mark_the_stages():
    result = gradient_result(names=("plain",))
    (ax,) = figures.gradients_along_depth(result).axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [b.magnitudes.mean for b in result.networks[0].blocks])
    assert [line.get_xdata()[0] for line in ax.lines[1:]] == [2.5, 4.5]
    assert [t.get_text() for t in ax.texts] == ["stage 1", "stage 2", "stage 3"]


def test_gradients_along_training_have_a_panel_per_stage():
    result = gradient_result(epochs=(0, 2, 3))
    figure = figures.gradients_along_training(result)
    assert [ax.get_title() for ax in figure.axes] == ["Stage 1", "Stage 2", "Stage 3"]
    assert [list(line.get_xdata()) for line in figure.axes[1].lines] == [[0, 2, 3]] * 2
    with pytest.raises(ValueError, match="no network has an epoch"):
        figures.gradients_along_training(gradient_result(names=("plain",)))


def test_gradient_results_draw_themselves():
    result = gradient_result(names=("plain",))
    figure = result.figure()
    for ax, stage in zip(figure.axes, result.networks[0].stages, strict=True):
        counts, edges = stage.magnitudes.binned(10)
        data = ax.patches[-1].get_data()
        np.testing.assert_allclose(data.values, counts / counts.max())
        np.testing.assert_allclose(np.log10(data.edges), edges)
        assert (ax.get_xscale(), ax.get_title()) == ("log", f"Stage {stage.stage}")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain"]
    frame = result.to_dataframe()
    assert frame[frame["block"] == 0]["mean_abs"].tolist() == [
        stage.magnitudes.mean for stage in result.networks[0].stages
    ]
    assert len(repr(result.networks[0])) < 800


def test_cost_ratios_show_time_flops_and_parameters():
    image = torch.randn(2, 3, 8, 8)
    plain = Subject(create_model("cifar_resnet20"), image, "plain")
    result = measure_cost({"plain": plain, "se": Subject(create_model("cifar_resnet20_se"), image, "plain")}, rounds=6)
    base, se = result.networks
    (ax,) = figures.cost_ratios(result).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["se"]
    interval, *ratios = (line.get_xdata() for line in ax.lines[:4])
    assert tuple(interval) == se.interval
    expected = (se.latency_ratio, se.flops / base.flops, se.parameters / base.parameters)
    assert [r[0] for r in ratios] == pytest.approx(expected)
    assert len(result.plot(Figure().subplots()).lines) == 5
    with pytest.raises(ValueError, match="no network has another one"):
        figures.cost_ratios(measure_cost({"plain": plain}, rounds=6))
