"""Gini importance: planted answers, noise, held-out images, scikit-learn, what has no number, and end to end."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import r2_score
from test_correlation import Gates

import figures
from dia_analysis import AnalysisInputError, GiniCollector, StageMaps, gini_importance
from dia_analysis.importance import beyond_two_nearest
from dia_analysis.layer_forests import Fold, measure, pairs, r_squared, vectors
from dia_analysis.sample import ImageSample
from dia_models import create_model


def noise(images=40, layers=5, channels=12, seed=0):
    return torch.rand(images, layers, channels, generator=torch.Generator().manual_seed(seed))


def planted():
    """Layer 5 follows layer 2, not in a straight line; all else is noise."""
    maps = noise()
    maps[:, 4] = (2 * maps[:, 1] - 1).square() + 0.02 * maps[:, 4]
    return maps


def of_maps(maps, batch_size=16, **options):
    return gini_importance(Gates(maps.shape[1]), maps.split(batch_size), **options)


@pytest.fixture(scope="module")
def found():
    return of_maps(planted())


def test_a_layer_built_from_the_second_gives_it_the_importance(found):
    stage = found.stages[0]
    assert stage.importance()[3, 1] > 0.9
    assert stage.permutation()[3].argmax() == 1
    assert stage.permutation()[3, 1] > 1
    assert stage.above_null()[3].tolist() == [False, True, False, False]
    assert stage.r2()[3] > 0.9


def test_noise_is_flat_predicts_nothing_and_does_not_rise_above_its_null(found):
    stage = found.stages[0]
    for target in range(3):
        np.testing.assert_allclose(stage.importance()[target, : target + 1], 1 / (target + 1), atol=0.05)
        assert not stage.above_null()[target].any()
        assert stage.r2()[target] == pytest.approx(0, abs=0.25)
        assert stage.r2()[target] == pytest.approx(stage.r2(null=True)[target], abs=0.15)
    assert stage.r2(null=True) == pytest.approx(np.zeros(4), abs=0.25)
    assert np.abs(stage.permutation()[:3][np.tri(3, 4, dtype=bool)]).max() < 0.1


def test_the_share_beyond_the_two_nearest_by_hand(found):
    """Layer 4's share is what is on layer 1, layer 5's on 1 and 2: (0.2 + 0.7) / 2."""
    nan = np.nan
    rows = [[1, nan, nan, nan], [0.6, 0.4, nan, nan], [0.2, 0.3, 0.5, nan], [0.1, 0.6, 0.2, 0.1]]
    assert beyond_two_nearest(np.array([rows])) == pytest.approx([0.45])
    rows[2] = [nan] * 4
    assert beyond_two_nearest(np.array([rows])) == pytest.approx([0.7])
    assert np.isnan(beyond_two_nearest(np.array([rows])[:, :2, :2])).all()
    stage = found.stages[0]
    assert stage.beyond_if_flat() == pytest.approx((1 / 3 + 2 / 4) / 2)
    layers = stage.importance()
    assert stage.beyond_two_nearest().mean() == pytest.approx((layers[2, 0] + layers[3, :2].sum()) / 2, abs=1e-6)
    assert stage.beyond_by_permutation() > 0.4


@pytest.mark.parametrize("seed", [0, 3])
def test_the_importance_is_that_of_plain_forests_of_100_trees_on_all_rows(seed):
    maps = noise(30, 4, 10)
    maps[:, 1:] = maps[:, 1:] + maps[:, :1] + 0.5 * maps[:, 1:2]
    result = of_maps(maps, seed=seed).stages[0]
    x = maps.numpy().transpose(0, 2, 1).reshape(-1, 4)
    seen = GiniCollector(seed=seed)  # the rows in the order of the sample, as bootstraps go by number
    seen.add([StageMaps("channel", tuple((str(i), 0) for i in range(4)), maps)])
    x = pairs(seen._samples[0].compute()).columns.T
    for target in range(1, 4):
        plain = RandomForestRegressor(100, random_state=seed).fit(x[:, :target], x[:, target])
        np.testing.assert_allclose(result.importance()[target - 1, :target], plain.feature_importances_, atol=1e-6)


def test_images_not_rows_are_held_out():
    """All channels of an image have one value, which its other rows would give away: R² is 1 if rows are held out."""
    maps = np.repeat(noise(40, 3, 1).numpy(), 12, axis=2)
    table = pairs(maps)
    fold = Fold.draw(table, np.arange(8), 0)
    assert set(table.image[fold.test]) == set(range(8))
    assert set(table.image[fold.train]) == set(range(8, 40))
    assert measure(table, 0).r2.mean(0)[1] < 0.1


def test_r_squared_is_scikit_learns():
    random = np.random.default_rng(0)
    truth, predicted = random.random(20), random.random((20, 2))
    expected = [r2_score(truth, predicted[:, k]) for k in range(2)]
    assert r_squared(truth, predicted) == pytest.approx(expected)
    assert np.isnan(r_squared(np.full(20, 0.1), predicted)).all()


def test_whole_vectors_find_the_layer_that_was_rotated():
    """Layer 4 is layer 1, rotated: no channel goes with the same channel, yet the vector follows."""
    maps = noise(120, 4, 4).numpy()
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    maps[:, 3] = maps[:, 0] @ rotation.astype(np.float32)
    whole = measure(vectors(maps), 0)
    assert whole.gini.shape == (5, 3, 3)
    np.testing.assert_allclose(np.nansum(whole.gini, 2), 1)
    assert whole.gini.mean(0)[2].argmax() == 0
    assert whole.above_null()[2].tolist() == [True, False, False]
    by_channel = measure(pairs(maps), 0)
    assert whole.gini.mean(0)[2, 0] > by_channel.gini.mean(0)[2, 0] + 0.1


def test_vectors_say_how_much_of_the_variance_their_components_hold():
    maps = noise(30, 2, 12).numpy()
    deviations = maps - maps.mean(0)
    squares = [np.linalg.svd(deviations[:, layer])[1] ** 2 for layer in range(2)]
    held = sum(s[:8].sum() for s in squares) / sum(s.sum() for s in squares)
    assert vectors(maps).explained == pytest.approx(held, rel=1e-5)
    assert vectors(maps[:, :, :5]).explained == pytest.approx(1)


def test_the_same_seed_gives_the_same_numbers_whatever_the_batch_size():
    maps = planted()[:20, :3]
    first, again = of_maps(maps, 20), of_maps(maps, 3)
    assert first.to_dict() == again.to_dict()
    assert of_maps(maps, seed=1).to_dict()["stages"] != first.to_dict()["stages"]


def test_rows_sum_to_one_and_spread_over_forests_is_small_but_there(found):
    stage = found.to_dict()["stages"][0]
    assert [len(row) for row in stage["importance"]] == [1, 2, 3, 4]
    assert [sum(row) for row in stage["importance"]] == pytest.approx([1] * 4)
    assert stage["importance_std"][0] == [0]
    assert 0 < max(stage["importance_std"][3]) < 0.1
    assert stage["beyond_two_nearest_std"] > 0


def test_a_constant_layer_is_said_and_gives_no_number():
    maps = planted()[:20]
    maps[:, 2] = 0.1
    result = of_maps(maps)
    stage = result.to_dict()["stages"][0]
    assert stage["importance"][1] == [None, None]
    assert (stage["r2"][1], stage["null_r2"][1]) == (None, None)
    assert stage["above_null"][1] == [None, None]
    assert (stage["importance"][2][2], stage["constant"]) == (0, [3])
    assert "layers whose maps are the same everywhere: 3." in result.summary()
    assert "no importance for layers 3" in result.summary()
    json.dumps(result.to_dict(), allow_nan=False)
    figures.triangles({"constant": result})


def test_all_layers_constant():
    result = of_maps(torch.ones(6, 3, 4))
    stage = result.to_dict()["stages"][0]
    assert stage["importance"] == [[None], [None, None]]
    assert (stage["constant"], stage["between_channels"]) == ([1, 2, 3], None)
    vector = of_maps(torch.full((6, 3, 4), 0.1), vector=True).to_dict()["stages"][0]
    assert (vector["importance"], vector["explained"]) == ([[None], [None, None]], None)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_images_with_values_that_are_not_finite_are_left_out_and_counted(bad):
    maps = planted()[:20, :3]
    broken = torch.cat([maps, maps[:2]])
    broken[20, 1, 3] = bad
    broken[21] = bad
    result = of_maps(broken)
    stage = result.stages[0]
    assert (result.images, stage.images, stage.left_out, stage.rows) == (22, 20, 2, 240)
    assert np.isfinite(stage.importance()[1, :2]).all()
    assert "2 images have values that are not finite and were left out" in result.summary()
    nothing = of_maps(torch.full((3, 2, 4), bad))
    assert nothing.to_dict()["stages"][0]["importance"] == [[None]]
    assert "0 rows, too few for a forest" in nothing.summary()


def test_one_layer_two_layers_three_layers_and_one_image_are_said():
    one = of_maps(noise(4, 1))
    assert (one.stages[0].numbers, one.to_dict()["stages"][0]["importance"]) == (None, [])
    assert "has one attention layer (layers.0.gate), so no forest was grown" in one.summary()
    two = of_maps(noise(8, 2))
    assert two.to_dict()["stages"][0]["importance"] == [[1.0]]
    assert "the one source has importance 1 by construction" in two.summary()
    three = of_maps(noise(8, 3))
    assert three.to_dict()["stages"][0]["beyond_two_nearest"] is None
    assert "none of which has a source beyond its two nearest" in three.summary()
    single = of_maps(noise(1, 4))
    stage = single.to_dict()["stages"][0]
    assert (stage["r2"], stage["null_r2"], stage["above_null"][0]) == ([None] * 3, [None] * 3, [None])
    assert sum(stage["importance"][2]) == pytest.approx(1)
    assert "too few images to hold some out" in single.summary()
    assert "has 1 rows, too few" in of_maps(noise(1, 4), vector=True).summary()


def test_no_images_is_an_error():
    with pytest.raises(AnalysisInputError, match="no images to analyse"):
        gini_importance(Gates(2), [])


def test_a_sample_is_bounded_fair_and_merges():
    values = torch.arange(200.0)[:, None, None].expand(200, 2, 3)
    kept = []
    for seed in range(40):
        sample = ImageSample(20, 2, seed)
        for part in values.split(30):
            sample.update(part)
            assert sum(map(len, sample.maps)) <= 20
        maps = sample.compute()
        assert maps.shape == (20, 2, 2)
        kept.append(maps[:, 0, 0])
    assert len(set(kept[0])) == 20
    assert np.mean(kept) == pytest.approx(99.5, abs=6)  # 800 draws with deviation 58
    first, second = ImageSample(20, 3, 0), ImageSample(20, 3, 1)
    first.update(values[:100])
    second.update(values[100:])
    first.merge_state(second)
    assert first.compute().shape == (20, 2, 3)
    assert (int(first.seen), int(first.left_out)) == (200, 0)


def test_end_to_end_on_a_network_and_it_is_left_as_it_was():
    model = create_model("cifar_resnet29_dia_lstm")
    modes = [m.training for m in model.modules()]
    steps = []
    images = torch.randn(6, 3, 8, 8)
    result = gini_importance(model, [(images[:4], None), (images[4:], None)], progress=lambda *s: steps.append(s))
    assert [stage.layers[2] for stage in result.stages] == [(f"stages.{i}.attention.gate", 2) for i in range(3)]
    assert [(stage.elements, stage.rows) for stage in result.stages] == [(64, 384), (128, 768), (256, 1536)]
    assert steps == [(k, 6) for k in range(1, 7)]
    assert [m.training for m in model.modules()] == modes
    np.testing.assert_allclose([stage.importance()[1].sum() for stage in result.stages], 1)
    assert all(0 < stage.between_channels < 1 for stage in result.stages)


def test_the_document_the_arrays_and_the_folder(found, tmp_path):
    document = found.to_dict()
    assert document["schema"] == "dia.gini/1"
    assert {"stage", "layers", "importance", "r2", "null_r2"} <= document["stages"][0].keys()
    assert document["stages"][0]["layers"] == 5
    folder = found.save(tmp_path / "out")
    with xr.open_dataset(folder / "stage1.nc") as arrays:
        assert arrays["gini"].dims == ("repeat", "target", "source")
        np.testing.assert_allclose(arrays["gini"].mean("repeat"), found.stages[0].importance())
        assert arrays["null_permutation"].shape == (5, 4, 4)
        assert arrays["target"].values[0] == "layers.1.gate#0"
    assert json.loads((folder / "gini.json").read_text()) == json.loads(json.dumps(document))
    with pytest.raises(AnalysisInputError, match="exists; choose another folder"):
        found.save(folder)
    assert found._repr_html_().startswith("<pre>stage")


def test_triangles_show_importance_marks_and_shares(found):
    other = of_maps(noise(8, 3))
    figure = figures.triangles({"planted": found, "noise": other})
    first, second = figure.axes[:2]
    np.testing.assert_allclose(first.get_images()[0].get_array().filled(np.nan), found.stages[0].importance())
    assert first.get_title() == f"Stage 1\nbeyond: {found.stages[0].beyond_two_nearest().mean():.2f}"
    assert second.get_title() == "Stage 1\nbeyond: –"
    assert {ax.get_images()[0].get_clim() for ax in (first, second)} == {(0.0, 1.0)}
    marked = first.lines[0]
    crosses = set(zip(marked.get_xdata(), marked.get_ydata(), strict=True))
    assert (2, 5) not in crosses
    assert {(1, 5), (3, 5), (4, 5), (1, 2)} <= crosses
    assert (first.get_ylabel(), second.get_xlabel()) == ("planted\nTarget layer", "Source layer")
    with pytest.raises(ValueError, match="no stage has two attention layers"):
        figures.triangles({"one": of_maps(noise(4, 1))})


def test_the_structure_has_an_arc_as_wide_as_each_source_is_important(found):
    figure = figures.importance_arcs({"planted": found, "noise": of_maps(noise(8, 3))})
    ax = figure.subfigs[0].axes[0]
    stage = found.stages[0]
    arcs = {}
    for line in ax.lines[:-1]:  # the last one is the row of layers
        x, y = line.get_xdata(), line.get_ydata()
        assert y[0] == pytest.approx(0)
        assert y.max() == pytest.approx((x[-1] - x[0]) / 2, rel=0.01)
        arcs[round(x[0]), round(x[-1])] = line
    importance = stage.importance()
    assert arcs[2, 5].get_linewidth() == pytest.approx(3 * importance[3, 1])
    assert arcs[2, 5].get_linewidth() > 2
    assert arcs[2, 5].get_color() == figures.COLOURS[0]
    assert arcs[1, 2].get_color() == "0.75"
    assert len(arcs) == (importance > 0).sum()
    assert len(ax.patches) == len(stage.layers) - 1
    with pytest.raises(ValueError, match="no stage has two attention layers"):
        figures.importance_arcs({"one": of_maps(noise(4, 1))})


def test_results_draw_themselves(found):
    ax = found.stages[0].plot(Figure().subplots())
    np.testing.assert_allclose(ax.get_images()[0].get_array().filled(np.nan), found.stages[0].importance())
    ax = found.plot(Figure().subplots())
    assert ax.patches[0].get_height() == pytest.approx(found.stages[0].beyond_two_nearest().mean())
