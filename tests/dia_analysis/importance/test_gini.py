"""Gini importance: planted answers, noise, held-out images, scikit-learn, intervals, what has no number, end to end."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from beartype.roar import BeartypeCallHintViolation
from scipy.stats import t as student
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import r2_score

import dia_models
import figures
from dia_analysis import AnalysisInputError, GiniCollector, StageMaps, measure_importance
from dia_analysis.importance.halves import interval, split, standard_error
from dia_analysis.importance.layer_forests import Fold, Forests, halved, measure, r_squared
from dia_analysis.importance.rows import centred, deviations, raw, vectors
from dia_analysis.importance.sample import ImageSample
from dia_analysis.importance.scores import beyond_two_nearest, if_flat
from dia_analysis.probes.stream import stream_stages
from dia_analysis.results.style import COLORS
from dia_models import create_model
from dia_models.data import evenly_spaced, open_data
from tests.support.gates import Gates

pytestmark = pytest.mark.numeric


def noise(images=40, layers=5, channels=12, seed=0):
    return torch.rand(images, layers, channels, generator=torch.Generator().manual_seed(seed))


def planted():
    """Layer 5 follows layer 2, not in a straight line; all else is noise."""
    maps = noise()
    maps[:, 4] = (2 * maps[:, 1] - 1).square() + 0.02 * maps[:, 4]
    return maps


def of_maps(maps, batch_size=16, **options):
    return measure_importance(Gates(maps.shape[1]), maps.split(batch_size), **options)


@pytest.fixture(scope="module")
def found():
    return of_maps(planted())


def test_a_layer_built_from_the_second_gives_it_the_importance(found):
    stage = found.stages[0]
    assert found.rows == "centred"
    assert stage.importance()[3, 1] > 0.9
    assert stage.permutation()[3].argmax() == 1
    assert stage.permutation()[3, 1] > 1
    assert stage.above_null()[3].tolist() == [False, True, False, False]
    assert stage.r2()[3] > 0.9


def same_channel_means(strength=0.1):
    """Layer 4 follows layer 1 in what depends on the image; all share their channels' means, which are larger."""
    maps = strength * noise(40, 4, 16)
    maps[:, 3] = maps[:, 0] + 0.01 * maps[:, 3]
    return maps + torch.linspace(0, 10, 16)


def test_raw_rows_recognise_the_channel_and_centred_ones_find_the_source():
    maps = same_channel_means()
    by_channel, by_image = (of_maps(maps, rows=rows).stages[0] for rows in ("raw", "centred"))
    assert by_image.importance()[2, 0] > 0.95
    assert by_image.r2()[2] > 0.9
    assert by_image.above_null()[2].tolist() == [True, False, False]
    assert by_image.far()[2] > 0.95
    assert by_channel.importance()[2, 0] < 0.6
    assert by_channel.r2().min() > 0.99
    assert by_channel.r2(null=True).min() > 0.99  # another image's map does as well
    assert by_channel.between_channels > 0.99


def test_a_network_that_only_recognises_the_channel_is_said_to_have_no_rule():
    maps = 0.1 * noise(40, 4, 16) + torch.linspace(0, 10, 16)
    centred_rows, raw_rows = of_maps(maps), of_maps(maps, rows="raw")
    stage = centred_rows.stages[0]
    assert stage.r2() == pytest.approx(stage.r2(null=True), abs=0.1)
    assert stage.r2() == pytest.approx(np.zeros(3), abs=0.25)
    assert "Stage 1: R² below 0.05 for all layers: no rule common to all channels" in centred_rows.summary()
    assert (stage.unpredicted(), stage.beyond_interval()) == ((4,), None)
    assert centred_rows.to_dict()["stages"][0]["beyond_two_nearest"] is None
    assert "layer 4 left out of the share beyond the two nearest, as R² is not above 0; none is left" in (
        centred_rows.summary()
    )
    assert raw_rows.stages[0].r2().min() > 0.99
    assert "100% of the variance lies between the channels' means, so these forests mostly recognize the channel" in (
        raw_rows.summary()
    )


def test_centred_rows_by_hand_and_channels_that_rounding_alone_moves():
    """Values 1, 2, 6 have mean 3 and standard deviation sqrt(14 / 3)."""
    ulp = np.spacing(np.float32(0.5))
    maps = np.zeros((3, 2, 2), np.float32)
    maps[:, 0] = np.array([[1, 5], [2, 5], [6, 5]])
    maps[:, 1] = np.array([[0.5, 0], [0.5 + ulp, 1e-9], [0.5 - ulp, 3e-9]], np.float32)
    deviation, varies = deviations(maps)
    assert varies.tolist() == [[True, False], [False, True]]
    assert (deviation[:, 1, 0] == 0).all()
    table = centred(maps)
    first = np.array([-2, -1, 3]) / np.sqrt(14 / 3)
    np.testing.assert_allclose(table.columns[0].reshape(3, 2), np.stack([first, np.zeros(3)], axis=1), rtol=1e-6)
    np.testing.assert_allclose(np.square(table.columns[1].reshape(3, 2)[:, 1]).mean(), 1, rtol=1e-6)
    assert np.isnan(table.targets[1][0].values.reshape(3, 2)).tolist() == [[True, False]] * 3


def test_channels_that_do_not_vary_are_left_out_as_targets():
    """They would be predicted as 0 without a fault: the answer is that of the channels that vary."""
    maps = noise(40, 4, 12).numpy()
    maps[:, 3] = maps[:, 1]
    still = np.concatenate([maps, np.full((40, 4, 12), 0.3, np.float32)], axis=2)
    still[:, :3, 12:] = noise(40, 3, 12, seed=9).numpy()
    whole, without = measure(still, "centred", 0), measure(maps, "centred", 0)
    assert whole.gini[2, 1] > 0.95
    assert whole.r2.mean(0)[2] == pytest.approx(without.r2.mean(0)[2], abs=0.05)
    summary = of_maps(torch.from_numpy(still)).summary()
    assert "in layers 4 (12 of 24) only so many channels differ between images" in summary


def test_the_null_gives_every_row_another_image_and_the_same_channel():
    table = raw(noise(6, 2, 4).numpy())
    rows = table.of_other_images(np.random.default_rng(0))
    assert sorted(rows) == list(range(24))
    assert (rows % 4 == np.arange(24) % 4).all()
    images = (rows // 4).reshape(6, 4)
    assert (images == images[:, :1]).all()
    assert (images[:, 0] != np.arange(6)).all()


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
    """Layer 4's share is what is on layer 1, layer 5's on 1 and 2."""
    nan = np.nan
    rows = [[1, nan, nan, nan], [0.6, 0.4, nan, nan], [0.2, 0.3, 0.5, nan], [0.1, 0.6, 0.2, 0.1]]
    assert beyond_two_nearest(np.array(rows)) == pytest.approx([nan, nan, 0.2, 0.7], nan_ok=True)
    rows[2] = [nan] * 4
    assert beyond_two_nearest(np.array([rows])) == pytest.approx(np.array([[nan, nan, nan, 0.7]]), nan_ok=True)
    assert np.isnan(beyond_two_nearest(np.array(rows)[:2, :2])).all()
    assert if_flat(4) == pytest.approx([nan, nan, 1 / 3, 2 / 4], nan_ok=True)


def test_only_layers_that_can_be_predicted_count(found):
    """Layer 4 is noise, with R² below 0, so that the share and what it is if flat are those of layer 5."""
    stage = found.stages[0]
    assert stage.r2()[2] < 0 < stage.r2()[3]
    assert stage.unpredicted() == (4,)
    assert stage.beyond_two_nearest() == pytest.approx(stage.importance()[3, :2].sum())
    assert stage.beyond_if_flat() == pytest.approx(2 / 4)
    assert stage.beyond_by_permutation() > 0.9
    assert "1 of 2" in found.summary()
    low, high = stage.beyond_interval()
    assert low < stage.beyond_two_nearest() < high <= 1


@pytest.mark.parametrize("seed", [0, 3])
def test_the_importance_is_that_of_plain_forests_of_100_trees_on_all_rows(seed):
    """The rows that scikit-learn is given are made anew here: standardised by channel."""
    maps = noise(20, 4, 8)
    maps[:, 1:] = maps[:, 1:] + maps[:, :1] + 0.5 * maps[:, 1:2] + torch.arange(8.0)
    collector = GiniCollector(seed=seed)  # the rows in the order of the sample, as bootstraps go by number
    collector.add([StageMaps("channel", tuple((str(i), 0) for i in range(4)), maps)])
    drawn = collector._samples[0].compute().astype(np.float64)
    scaled = ((drawn - drawn.mean(0)) / drawn.std(0)).astype(np.float32)
    x = scaled.transpose(0, 2, 1).reshape(-1, 4)
    importance = Forests.of(centred(drawn.astype(np.float32)), 100, seed).importance
    for target in range(1, 4):
        plain = RandomForestRegressor(100, random_state=seed).fit(x[:, :target], x[:, target].astype(np.float64))
        np.testing.assert_allclose(importance(target), plain.feature_importances_, atol=1e-6)


def test_halves_are_halves_and_those_of_fewer_images_are_the_same():
    whole = split(41, 0)
    assert whole.shape == (10, 41)
    assert (whole[:, 0:40:2] != whole[:, 1:40:2]).all()
    assert (whole[:, :20] == split(20, 0)).all()
    assert len({tuple(row) for row in whole}) == 10


def test_the_interval_of_a_mean_is_students():
    """Of a mean, half-samples give the textbook's standard error, here from 400 ways to split."""
    random = np.random.default_rng(0)
    values = random.normal(size=2000)
    first = np.stack([split(2000, seed)[0] for seed in range(400)])
    halves = np.stack([[values[one].mean(), values[~one].mean()] for one in first])
    assert standard_error(halves) == pytest.approx(values.std(ddof=1) / np.sqrt(2000), rel=0.15)
    low, high = interval(np.float64(1), halves[:10], 60)
    half = student.ppf(0.975, 1 / (1 / 10 + 1 / 30)) * standard_error(halves[:10])
    assert (low, high) == pytest.approx((1 - half, 1 + half))
    assert np.isnan(interval(np.float64(1), halves[:10], 19)).all()


@pytest.mark.parametrize("rows", ["raw", "vector"])
def test_the_interval_covers_what_disjoint_samples_scatter(rows, digits_maps):
    """Six samples of 40 images; a 95 % interval of each is as wide as four standard deviations, the range of six is
    wider than that in 5 % of cases. The first stage, where five forests on the same rows give a spread of 0.01."""
    shares, widths = [], []
    for sample in np.split(digits_maps[:240], 6):
        forests = Forests.of((raw if rows == "raw" else vectors)(sample), 100, 0)
        importance = np.full((5, 5), np.nan)
        for target in range(1, 6):
            importance[target - 1, :target] = forests.importance(target)
        by_half = beyond_two_nearest(halved(sample, rows, 0))[..., 2:].mean(-1)
        shares.append(beyond_two_nearest(importance)[2:].mean())
        low, high = interval(np.float64(0), by_half, 40)
        widths.append(high - low)
    assert np.std(shares, ddof=1) > 0.02
    assert np.ptp(shares) < np.mean(widths) < 8 * np.std(shares, ddof=1)


@pytest.fixture(scope="module")
def digits_maps():
    """The first stage of DIA-LSTM trained on digits, 240 test images in random order: (image, layer, channel)."""
    model, maps = dia_models.load("digits-resnet56-dia-lstm"), []
    source = open_data("digits", "test", None)
    prepare = dia_models.Checkpoint.read("digits-resnet56-dia-lstm").info.preprocessing
    chosen = np.random.default_rng(5).permutation(evenly_spaced(240, len(source))).tolist()
    batches = (prepare(batch.pixels) for batch in source.batches(chosen, 240, prepare.size, 1))
    stream_stages(model, batches, lambda stages: maps.append(stages[0].maps.numpy()))
    return np.concatenate(maps)


def test_images_not_rows_are_held_out():
    """All channels of an image have one value, which its other rows would give away: R² is 1 if rows are held out."""
    maps = np.repeat(noise(40, 3, 1).numpy(), 12, axis=2)
    table = raw(maps)
    fold = Fold.draw(table, np.arange(8), 0)
    assert set(table.image[fold.test]) == set(range(8))
    assert set(table.image[fold.train]) == set(range(8, 40))
    assert measure(maps, "raw", 0, quick=True).r2.mean(0)[1] < 0.1


def test_r_squared_is_scikit_learns():
    random = np.random.default_rng(0)
    truth, predicted = random.random(20), random.random((20, 2))
    expected = [r2_score(truth, predicted[:, k]) for k in range(2)]
    assert r_squared(truth, predicted, truth.var()) == pytest.approx(expected)
    assert np.isnan(r_squared(np.full(20, 0.1), predicted, 0.0)).all()


def test_whole_vectors_find_the_layer_that_was_rotated():
    """Layer 4 is layer 1, rotated: no channel goes with the same channel, yet the vector follows."""
    maps = noise(80, 4, 4).numpy()
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    maps[:, 3] = maps[:, 0] @ rotation.astype(np.float32)
    whole = measure(maps, "vector", 0)
    assert whole.gini.shape == (3, 3)
    np.testing.assert_allclose(np.nansum(whole.gini, 1), 1)
    assert whole.gini[2].argmax() == 0
    assert whole.above_null()[2].tolist() == [True, False, False]
    by_channel = measure(maps, "centred", 0, quick=True)
    assert whole.gini[2, 0] > by_channel.gini[2, 0] + 0.1


def test_small_matrices_are_decomposed_by_one_thread(monkeypatch):
    """Two threads of a busy machine take a hundred times as long."""
    from threadpoolctl import threadpool_info

    def threads():
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before, inside, svd = threads(), [], np.linalg.svd

    def heard(*given, **options):
        inside.extend(threads())
        return svd(*given, **options)

    monkeypatch.setattr(np.linalg, "svd", heard)
    vectors(np.random.default_rng(0).random((5, 2, 3), dtype=np.float32))
    assert inside
    assert set(inside) == {1}
    assert threads() == before


def test_vectors_say_how_much_of_the_variance_their_components_hold():
    maps = noise(30, 2, 12).numpy()
    deviations = maps - maps.mean(0)
    squares = [np.linalg.svd(deviations[:, layer])[1] ** 2 for layer in range(2)]
    held = np.mean([s[:8].sum() / s.sum() for s in squares])
    assert vectors(maps).explained == pytest.approx(held, rel=1e-5)
    assert vectors(maps[:, :, :5]).explained == pytest.approx(1)


def test_the_same_seed_gives_the_same_numbers_whatever_the_batch_size():
    maps = planted()[:20, :3]
    first, again = of_maps(maps, 20), of_maps(maps, 3)
    assert first.to_dict() == again.to_dict()
    assert of_maps(maps, seed=1).to_dict()["stages"] != first.to_dict()["stages"]


def test_vectors_of_small_maps_are_those_of_large_ones():
    """A barely trained network's maps hardly vary: their size must not matter."""
    maps = (noise(30, 3, 6) - 0.5).numpy()
    small, large = (measure(scale * maps + 1, "vector", 0, quick=True).gini for scale in (np.float32(2**-12), 1))
    np.testing.assert_allclose(small, large, atol=0.05)


def test_rows_sum_to_one_and_each_importance_has_its_interval(found):
    stage = found.to_dict()["stages"][0]
    assert [len(row) for row in stage["importance"]] == [1, 2, 3, 4]
    assert [sum(row) for row in stage["importance"]] == pytest.approx([1] * 4)
    assert stage["importance_interval"][0] == [[1, 1]]
    for value, (low, high) in zip(stage["importance"][3], stage["importance_interval"][3], strict=True):
        assert 0 <= low < value < high <= 1
    low, high = stage["beyond_two_nearest_interval"]
    assert low < stage["beyond_two_nearest"] < high
    assert stage["beyond_two_nearest_left_out"] == [4]


def test_a_constant_layer_is_said_and_gives_no_number():
    maps = planted()[:20]
    maps[:, 2] = 0.1
    result = of_maps(maps)
    stage = result.to_dict()["stages"][0]
    assert stage["importance"][1] == [None, None]
    assert (stage["r2"][1], stage["null_r2"][1]) == (None, None)
    assert stage["above_null"][1] == [None, None]
    assert (stage["importance"][2][2], stage["constant"]) == (0, [3])
    assert "layers whose maps are the same for all images: 3." in result.summary()
    assert "no importance for layers 3" in result.summary()
    json.dumps(result.to_dict(), allow_nan=False)
    figures.triangles({"constant": result})


def test_all_layers_constant():
    result = of_maps(torch.ones(6, 3, 4))
    stage = result.to_dict()["stages"][0]
    assert stage["importance"] == [[None], [None, None]]
    assert (stage["constant"], stage["between_channels"]) == ([1, 2, 3], None)
    assert of_maps(torch.full((6, 3, 4), 0.1), rows="raw").to_dict()["stages"][0]["constant"] == [1, 2, 3]
    vector = of_maps(torch.full((6, 3, 4), 0.1), rows="vector").to_dict()["stages"][0]
    assert (vector["importance"], vector["explained"]) == ([[None], [None, None]], None)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_images_with_values_that_are_not_finite_are_left_out_and_counted(bad):
    maps = planted()[:20, :3]
    broken = torch.cat([maps, maps[:2]])
    broken[20, 1, 3] = bad
    broken[21] = bad
    result = of_maps(broken)
    stage = result.stages[0]
    assert (result.num_images, stage.num_images, stage.left_out, stage.rows) == (22, 20, 2, 240)
    assert np.isfinite(stage.importance()[1, :2]).all()
    assert "left out for values that are not finite: 2 images" in result.summary()
    nothing = of_maps(torch.full((3, 2, 4), bad))
    assert nothing.to_dict()["stages"][0]["importance"] == [[None]]
    assert "Stage 1: its maps are not finite (NaN or infinite) on 3 images, which are all" in nothing.summary()
    assert (nothing.diverged, result.diverged) == (True, False)


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
    single = of_maps(noise(1, 4), rows="raw")
    stage = single.to_dict()["stages"][0]
    assert (stage["r2"], stage["null_r2"], stage["above_null"][0]) == ([None] * 3, [None] * 3, [None])
    assert sum(stage["importance"][2]) == pytest.approx(1)
    assert "too few images to hold some out" in single.summary()
    assert single.stages[0].beyond_interval() is None
    assert (
        "has 1 row, too few for a forest; at least 2 images are needed" in of_maps(noise(1, 4), rows="vector").summary()
    )
    assert "has 12 rows, too few for a forest; at least 2 images are needed" in of_maps(noise(1, 4)).summary()


def test_unknown_rows_are_an_error():
    """Checks of types, which these tests run with, say so too."""
    with pytest.raises((AnalysisInputError, BeartypeCallHintViolation), match="rows"):
        measure_importance(Gates(2), [], rows="pairs")


def test_no_images_is_an_error():
    with pytest.raises(AnalysisInputError, match="no images to analyze"):
        measure_importance(Gates(2), [])


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
    result = measure_importance(model, [(images[:4], None), (images[4:], None)], progress=lambda *s: steps.append(s))
    assert [stage.layers[2] for stage in result.stages] == [(f"stages.{i}.attention.gate", 2) for i in range(3)]
    assert [(stage.elements, stage.rows) for stage in result.stages] == [(64, 384), (64, 384), (64, 384)]
    assert steps == [(k, 6) for k in range(1, 7)]
    assert [m.training for m in model.modules()] == modes
    np.testing.assert_allclose([stage.importance()[1].sum() for stage in result.stages], 1)
    assert all(0 < stage.between_channels < 1 for stage in result.stages)


def test_the_document_the_arrays_and_the_folder(found, tmp_path):
    document = found.to_dict()
    assert (document["schema"], document["rows"]) == ("dia.gini/1", "centred")
    assert {"stage", "layers", "importance", "r2", "null_r2"} <= document["stages"][0].keys()
    assert document["stages"][0]["layers"] == 5
    folder = found.save(tmp_path / "out")
    with xr.open_dataset(folder / "stage1.nc") as arrays:
        assert arrays["gini"].dims == ("target", "source")
        np.testing.assert_allclose(arrays["gini"], found.stages[0].importance())
        assert arrays["halves"].shape == (10, 2, 4, 4)
        assert arrays["null_permutation"].shape == (5, 4, 4)
        assert arrays["target"].values[0] == "layers.1.gate#0"
    assert json.loads((folder / "gini.json").read_text()) == json.loads(json.dumps(document))
    with pytest.raises(AnalysisInputError, match="exists; choose another folder"):
        found.save(folder)
    assert found._repr_html_().startswith("<pre>Rows: (image, channel) pairs, each channel without")


def test_triangles_show_importance_marks_and_shares(found):
    other = of_maps(noise(8, 3))
    figure = figures.triangles({"planted": found, "noise": other})
    first, second = figure.axes[:2]
    np.testing.assert_allclose(first.get_images()[0].get_array().filled(np.nan), found.stages[0].importance())
    assert first.get_title() == (
        f"Stage 1\nfurther back: {found.stages[0].beyond_two_nearest():.2f}\nR² {found.stages[0].mean_r2():.2f}"
    )
    assert second.get_title().startswith("Stage 1\nfurther back: –\nR² −")
    assert figure.get_suptitle() == "Centred rows: a channel of an image, its mean removed"
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
    assert arcs[2, 5].get_color() == COLORS[0]
    assert arcs[1, 2].get_color() == "0.75"
    assert len(arcs) == (importance > 0).sum()
    assert len(ax.patches) == len(stage.layers) - 1
    with pytest.raises(ValueError, match="no stage has two attention layers"):
        figures.importance_arcs({"one": of_maps(noise(4, 1))})


def test_results_draw_themselves(found):
    axes = found.figure().axes
    drawn = [stage for stage in found.stages if stage.numbers is not None]
    for ax, stage in zip(axes, drawn, strict=False):
        np.testing.assert_allclose(ax.get_images()[0].get_array().filled(np.nan), stage.importance())
    assert axes[len(drawn)].get_ylabel() == "Gini importance"
    frame = found.to_dataframe()
    for stage, rows in zip(drawn, (frame[frame["stage"] == stage.stage] for stage in drawn), strict=True):
        wide = rows.pivot(index="target", columns="source", values="importance")
        names = [f"{module}#{call}" for module, call in stage.layers]
        wide = wide.reindex(index=names[1:], columns=names[:-1])
        np.testing.assert_allclose(wide.to_numpy(), stage.importance())
    assert len(repr(found)) < 400
    assert len(repr(found.stages[0])) < 600


class Inside(torch.nn.Module):
    """Gates inside blocks, before channels are mixed: of one width, or of a width each."""

    def __init__(self, *widths):
        super().__init__()
        self.wide = torch.nn.ModuleList(torch.nn.Conv2d(4, width, 1) for width in widths)
        self.squeeze = torch.nn.ModuleList(torch.nn.Linear(width, width) for width in widths)
        self.mix = torch.nn.ModuleList(torch.nn.Conv2d(width, 4, 1) for width in widths)

    def forward(self, x):
        for wide, squeeze, mix in zip(self.wide, self.squeeze, self.mix, strict=True):
            y = wide(x)
            x = x + mix(y * torch.sigmoid(squeeze(y.mean((2, 3))))[:, :, None, None])
        return x.mean((2, 3))


def test_rows_by_channel_are_undefined_where_channels_do_not_correspond():
    model, images = Inside(6, 6), torch.randn(12, 4, 3, 3).split(6)
    by_channel, vector = (measure_importance(model, images, rows=rows).stages[0] for rows in ("centred", "vector"))
    assert by_channel.numbers is None
    assert by_channel.to_dict()["undefined"] == "channel numbers have no common meaning"
    assert vector.numbers is not None
    assert vector.to_dict()["undefined"] is None


def test_layers_of_different_widths_are_one_stage_of_whole_vectors():
    model, images = Inside(5, 6, 7, 8), torch.randn(30, 4, 3, 3).split(15)
    raw_rows, vector = (measure_importance(model, images, rows=rows) for rows in ("raw", "vector"))
    (stage,), (undefined,) = vector.stages, raw_rows.stages
    assert len(stage.layers) == 4
    assert stage.varying == (5, 6, 7, 8)
    np.testing.assert_allclose(np.nansum(stage.importance(), 1), 1)
    assert undefined.numbers is None
    assert "rows by channel are undefined: its layers have different widths" in raw_rows.summary()


def test_zeros_beside_a_vector_change_nothing():
    maps = noise(images=20, layers=2, channels=6).numpy()
    wider = np.concatenate([maps, np.zeros((20, 2, 3), np.float32)], axis=2)
    # A layer is scaled by its root mean square over more elements, all by the same factor: forests see the same order.
    first, second = (measure(some, "vector", 0, quick=True).gini for some in (maps, wider))
    np.testing.assert_allclose(first, second, atol=1e-6)
