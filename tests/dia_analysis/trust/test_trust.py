"""The trust checks: planted maps that must fail and real ones that must pass, by hand, and what stays untouched."""

import json
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch import nn

import figures
from dia_analysis import AnalysisInputError, check_randomization, check_road, gradcam, measure_agreement
from dia_analysis.statistics.similarity import spearman, ssim
from dia_analysis.trust.random_weights import cascade, parameter_modules
from dia_analysis.trust.road import curve, ranks, removed_mean
from dia_models import create_model
from tests.support.heatmaps import SQUARE, Finder, Tiny, edges, maps, patches, spread, state, take_maps

pytestmark = pytest.mark.numeric


def test_rank_correlation_equals_scipys_also_with_ties():
    a, b = maps(4, 6, 6), maps(4, 6, 6, seed=1)
    b[1] = np.maximum(b[1] - 0.5, 0)
    expected = [scipy.stats.spearmanr(x.ravel(), y.ravel())[0] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected, atol=1e-12)


def test_rank_correlation_by_hand():
    """Ranks 1 2 3 4 and 1 3 2 4: the squared differences sum to 2, so rho = 1 - 6 * 2 / (4 * 15) = 0.8."""
    assert spearman(np.array([[[1.0, 2], [3, 4]]]), np.array([[[1.0, 9], [4, 100]]]))[0] == pytest.approx(0.8)


def ssim_loop(a, b):
    """One window at a time, as Wang et al. write it."""
    a, b = ((x - x.min()) / np.ptp(x) for x in (a, b))
    values = []
    for i in range(a.shape[0] - 6):
        for j in range(a.shape[1] - 6):
            p, q = a[i : i + 7, j : j + 7], b[i : i + 7, j : j + 7]
            both = 2 * np.mean((p - p.mean()) * (q - q.mean())) + 0.03**2
            means = (2 * p.mean() * q.mean() + 0.01**2) / (p.mean() ** 2 + q.mean() ** 2 + 0.01**2)
            values.append(means * both / (p.var() + q.var() + 0.03**2))
    return np.mean(values)


def test_structural_similarity_equals_a_loop():
    a, b = maps(3, 9, 11), maps(3, 9, 11, seed=1)
    b[0] = a[0] + 0.1 * b[0]
    found = ssim(a, b)
    np.testing.assert_allclose(found, [ssim_loop(x, y) for x, y in zip(a, b, strict=True)], atol=1e-10)
    assert found[0] > 0.8 > found[1]
    np.testing.assert_allclose(ssim(a, 5 * a + 2), 1, atol=1e-7)


@pytest.mark.parametrize("measure", [spearman, ssim])
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_constant_and_non_finite_maps_are_not_comparable(measure, bad):
    a, b = maps(3, 8, 8), maps(3, 8, 8, seed=1)
    b[1] = bad
    assert np.isnan(measure(a, b)).tolist() == [False, True, False]
    assert np.isfinite(measure(a[:, :2, :2], b[:, :2, :2])).tolist() == [True, False, True]


def test_modules_are_destroyed_from_the_output_on():
    model = create_model("cifar_resnet11_dia_lstm")
    names = parameter_modules(model, torch.randn(1, 3, 8, 8))
    assert names[0] == "classifier"
    assert names[-1] == "stem.0"
    own = [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]
    assert sorted(names) == sorted(own)


def test_the_cascade_destroys_a_copy_step_by_step_until_nothing_is_left():
    model = create_model("cifar_resnet11_se")
    spread(model)
    before = {name: p.clone() for name, p in model.named_parameters()}
    images = torch.randn(1, 3, 8, 8)
    shares, changed = [], []
    for step in cascade(model, images, 4, torch.Generator().manual_seed(0)):
        shares.append(step.share)
        changed.append({n for n, p in step.model.named_parameters() if not torch.equal(p, before[n])})
    assert changed[0] <= {"classifier.weight", "classifier.bias"}
    assert all(a < b for a, b in pairwise(changed))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert "stem.0.weight" in changed[-1]
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_noise_has_the_mean_and_spread_of_what_it_replaces():
    model = nn.Sequential(nn.Conv2d(1, 100, 10), nn.Flatten(), nn.Linear(100, 2))
    model[0].weight.data.mul_(0.1).add_(3)
    spread_before = model[0].weight.std().item()
    *_, last = cascade(model, torch.randn(1, 1, 10, 10), 2, torch.Generator().manual_seed(0))
    noise = last.model[0].weight
    assert noise.mean().item() == pytest.approx(3, abs=0.01)
    assert noise.std().item() == pytest.approx(spread_before, rel=0.05)
    assert abs(np.corrcoef(noise.detach().ravel(), model[0].weight.detach().ravel())[0, 1]) < 0.05


def test_randomization_tells_an_edge_detector_from_a_real_map():
    images, where = patches()
    model = Finder()
    real = gradcam(model, images, target=1)
    assert spearman(real.maps, where).min() > 0.4  # the problem is not trivial: the map finds the patch
    planted = check_randomization(model, images, target=1, explain=edges, steps=3)
    np.testing.assert_allclose(planted.spearman, 1)
    np.testing.assert_allclose(planted.ssim, 1)
    assert planted.depends_on_weights is False
    assert "keep a rank correlation of 1.00 ± 0.00" in planted.summary()
    assert "they hardly depend on what the network has learned and cannot explain it" in planted.summary()
    checked = check_randomization(model, images, target=1, steps=3, draws=8)
    assert checked.depends_on_weights is True
    assert checked.final_spearman < 0.4
    assert "they depend on what the network has learned" in checked.summary()


def test_a_map_that_vanishes_has_changed_and_an_uncertain_one_is_called_so():
    images, _ = patches(4)

    def vanishing(model, images, _):
        same = torch.equal(model.head.weight, intact.head.weight)
        return maps(4, 20, 20) if same else np.zeros((4, 20, 20))

    intact = Finder()
    gone = check_randomization(intact, images, explain=vanishing, steps=2)
    assert (gone.final_spearman, gone.depends_on_weights) == (None, True)
    assert "no map is left" in gone.summary()
    assert gone.to_dict()["steps"][0]["undefined"] == 12

    def wavering(model, images, _):
        other = maps(4, 20, 20, seed=1)
        other[:2] = maps(4, 20, 20)[:2]
        return maps(4, 20, 20) if torch.equal(model.head.weight, intact.head.weight) else other

    unsure = check_randomization(intact, images, explain=wavering, steps=2)
    assert unsure.depends_on_weights is None
    assert "too uncertain to tell" in unsure.summary()


def test_randomization_is_repeatable_and_leaves_the_network_alone():
    model, images = create_model("cifar_resnet11_se"), torch.ones(2, 3, 8, 8)
    spread(model)
    before = state(model)
    first, second = (check_randomization(model, images, steps=3, draws=2, seed=5) for _ in range(2))
    assert state(model) == before
    np.testing.assert_array_equal(first.spearman, second.spearman)
    assert first.spearman.shape == (2, 3, 2)
    assert first.modules[0] == "classifier"
    assert not np.array_equal(first.spearman[0], first.spearman[1])


def test_ranks_fall_with_relevance_and_ties_are_broken_at_random():
    places = ranks(np.array([[[0.0, 3.0], [1.0, 2.0]]]), np.random.default_rng(0))
    np.testing.assert_allclose(places, [[[0.75, 0], [0.5, 0.25]]])
    ties = [ranks(np.zeros((1, 10, 10)), np.random.default_rng(seed)) for seed in (0, 1)]
    assert sorted(ties[0].ravel()) == pytest.approx(np.arange(100) / 100)
    assert not np.array_equal(*ties)


def test_the_curve_by_hand():
    """The score is the value of one pixel in a picture whose left half is 1 and right half 0."""
    images = torch.zeros(1, 1, 4, 8)
    images[..., :4] = 1

    def score(changed):
        return changed[:, 0, 1, 1].numpy()

    left = np.asarray(images[:, 0])
    first = curve(score, images, left, 4, np.random.default_rng(0))[0]
    np.testing.assert_allclose(first[[0, 2, 3]], [1, 0, 0], atol=0.05)  # with half removed there are zeros only
    last = curve(score, images, -left, 4, np.random.default_rng(0))[0]
    np.testing.assert_allclose(last, [1, 1, 1, 1], atol=0.05)
    assert removed_mean(np.array([[9.0, 1.0, 0.0]]))[0] == pytest.approx(0.5)


def test_road_tells_the_relevant_patch_from_another_place():
    images, where = patches()
    model = Finder()
    relevant = check_road(model, images, maps=where, target=1)
    inverted = check_road(model, images, maps=1 - where, target=1)
    assert relevant.morf[:, 0].min() > 0.9  # intact, the patch is seen
    assert relevant.morf[:, 1].max() < 0.2  # imputed, it is not: the patch is 6 % of the image
    np.testing.assert_array_equal(relevant.morf[:, 0], relevant.lerf[:, 0])
    assert relevant.score.min() > 0.2
    assert relevant.morf_gain.min() > 0.1
    assert relevant.lerf_gain.min() > 0.05
    assert relevant.better_than_random is True
    assert "above 0 in 6 of 6 images" in relevant.summary()
    assert inverted.score.max() < 0
    assert inverted.better_than_random is False
    real = check_road(model, images, target=1)
    assert real.score.mean() > 0.1
    assert real.better_than_random is True


def test_random_maps_score_nothing():
    images, _ = patches(12)
    noise = np.random.default_rng(7).random((12, 7, 7), dtype=np.float32).repeat(3, 1).repeat(3, 2)[:, :20, :20]
    result = check_road(Finder(), images, maps=noise, target=1, draws=6)
    assert result.random[:, :, 1].std() > 0.01  # the problem is not trivial: it matters what is removed
    for gain in (result.morf_gain, result.lerf_gain, result.score):
        assert abs(gain.mean()) < 3 * gain.std(ddof=1) / np.sqrt(12)


def test_images_whose_map_is_constant_are_left_out():
    images, where = patches(3)
    where[1] = 0
    result = check_road(Finder(), images, maps=where, target=1)
    assert result.left_out.tolist() == [False, True, False]
    assert np.isnan(result.score).tolist() == [False, True, False]
    assert (result.to_dict()["images"], result.to_dict()["left_out"]) == (2, 1)
    assert "Left out, as their map is constant: 1 image." in result.summary()
    nothing = check_road(Finder(), images, maps=0 * where, target=1)
    assert "there is no image whose map marks anything" in nothing.summary()
    json.dumps(nothing.to_dict(), allow_nan=False)
    assert nothing.plot(Figure().subplots()).get_ylabel() == "Score of the class"


def test_road_is_repeatable_and_leaves_the_network_alone():
    images, _ = patches(2)
    model = Finder().train()
    before = state(model)
    first, second = (check_road(model, images, seed=3) for _ in range(2))
    assert state(model) == before
    np.testing.assert_array_equal(first.morf, second.morf)
    np.testing.assert_array_equal(first.random, second.random)


@pytest.mark.parametrize("check", [check_randomization, check_road])
def test_impossible_numbers_of_steps_and_draws_are_refused(check):
    with pytest.raises(AnalysisInputError, match="steps and 0 draws given"):
        check(Finder(), patches(1)[0], draws=0)


def test_maps_of_another_size_than_the_images_are_refused():
    with pytest.raises(AnalysisInputError, match=r"\(2, 7, 7\) given for images \(2, 1, 20, 20\)"):
        check_road(Finder(), patches(2)[0], maps=np.zeros((2, 7, 7), dtype=np.float32))


def test_a_network_without_parameters_cannot_be_randomised():
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    with pytest.raises(AnalysisInputError, match="it has no parameters that could be destroyed"):
        next(cascade(model, torch.zeros(1, 1, 4, 4), 2, torch.Generator()))


def test_agreement_of_the_same_network_is_one_and_of_unrelated_maps_none():
    images, _ = patches()
    one = gradcam(Finder(), images, target=1, model_name="a")
    same = measure_agreement([one, one])
    np.testing.assert_allclose(same.spearman, 1)
    np.testing.assert_allclose(same.matrix, 1)
    assert same.to_dict()["other_images"] < 0.6
    random = [take_maps(one, maps(6, 20, 20, seed=s), f"run {s}") for s in range(3)]
    unrelated = measure_agreement(random)
    assert len(unrelated.pairs) == 3
    assert abs(unrelated.to_dict()["spearman"]) < 0.1
    assert "3 networks for the same class have a mean rank correlation of" in unrelated.summary()


def test_only_maps_of_the_same_class_are_compared():
    images, _ = patches(3)
    one, other = (
        gradcam(Finder(), images, target=[1, 1, 0], model_name="a"),
        gradcam(Finder(), images, target=1, model_name="b"),
    )
    result = measure_agreement([one, other])
    assert np.isnan(result.spearman[0]).tolist() == [False, False, True]
    assert "1 of 3 comparisons are left out" in result.summary()
    with pytest.raises(AnalysisInputError, match="one result has nothing to agree with"):
        measure_agreement([one])
    with pytest.raises(AnalysisInputError, match="was explained at another layer"):
        measure_agreement([one, gradcam(Finder(), images, layer="conv", model_name="b")])


def results():
    images, _ = patches(4)
    one = gradcam(Finder(), images, target=1, model_name="a")
    yield check_randomization(Finder(), images, target=1, steps=2, draws=4)
    yield check_road(Finder(), images, target=1, steps=3)
    yield measure_agreement([one, one])


def test_results_are_saved_drawn_and_shown(tmp_path):
    for result in results():
        folder = result.save(tmp_path / result.file)
        document = json.loads((folder / f"{result.file}.json").read_text())
        assert document == json.loads(json.dumps(result.to_dict(), allow_nan=False))
        with xr.open_dataset(folder / f"{result.file}.nc") as arrays:
            assert set(arrays.data_vars) & {"spearman", "morf"}
        assert result.plot(Figure().subplots()).get_children()
        assert result._repr_html_().startswith(f"<pre>{result.summary()}</pre>")


def test_the_figure_of_both_checks_shows_their_curves():
    randomization, road, _ = results()
    figure = figures.trust_checks(randomization, road)
    left, right = figure.axes
    assert left.lines[0].get_ydata()[0] == 1
    means = [step[np.isfinite(step)].mean() for step in randomization.spearman.swapaxes(0, 1)]
    np.testing.assert_allclose(left.lines[0].get_ydata()[1:], means)
    for line, curves in zip(right.lines, (road.morf, road.lerf, road.random.mean(0)), strict=True):
        np.testing.assert_allclose(line.get_ydata(), curves.mean(0))
        np.testing.assert_allclose(line.get_xdata(), [0, 1 / 3, 2 / 3])
    assert len(figure.legends) == 2


def test_an_untrustworthy_tiny_network_is_still_checked():
    """One image, a map of 2x2 positions: nothing breaks, and with so little the verdict may be open."""
    assert check_randomization(Tiny(), SQUARE, steps=2).depends_on_weights in (True, False, None)


def test_autocast_around_the_checks_changes_nothing():
    model, images = create_model("cifar_resnet11_se").eval(), torch.randn(2, 3, 12, 12)
    checks = (
        lambda: check_road(model, images, target=1, steps=3, draws=1),
        lambda: check_randomization(model, images, target=1, steps=2, draws=1),
    )
    for check in checks:
        expected = check()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = check()
        assert found.to_dict() == expected.to_dict()


def test_networks_in_half_precision_are_checked():
    model = create_model("cifar_resnet11_se").eval().bfloat16()
    images = torch.randn(2, 3, 12, 12).bfloat16()
    found = check_road(model, images, target=1, steps=3, draws=1)
    assert np.isfinite(found.morf[~found.left_out]).all()
    assert check_randomization(model, images, target=1, steps=2, draws=1).depends_on_weights in (True, False, None)
