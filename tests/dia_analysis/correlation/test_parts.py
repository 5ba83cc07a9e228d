"""The parts of r on planted maps: against plain loops, what adds up, what they tell apart, and degenerate cases."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from torch import nn

from dia_analysis import AnalysisInputError, measure_correlation
from dia_analysis.correlation import held
from dia_analysis.correlation.sums import DeviationSums, DirectionSums, MapSums
from dia_analysis.statistics.pearson import Deviations, rounding
from tests.support.gates import Gates, of_maps

pytestmark = pytest.mark.numeric
LAYERS, CHANNELS = 3, 24
PAIRS = list(combinations(range(LAYERS), 2))
FIXED = ("pooled_r", "r_from_static", "r_from_image", "mean_r_static", "mean_r_image", "mean_r_other_image")


def mixed(images=40, channels=CHANNELS):
    """Maps with a fixed pattern that layers share in part, a gain, and one feature of the image that drives them."""
    feature, gain = torch.rand(images, 1, 1), torch.rand(images, 1, 1)
    fixed = torch.rand(1, 1, channels) + 0.5 * torch.rand(1, LAYERS, channels)
    driven = torch.randn(1, LAYERS, channels) + torch.randn(channels)
    return fixed + 0.2 * gain + 0.6 * feature * driven + 0.1 * torch.randn(images, LAYERS, channels)


def r(a, b):
    return np.corrcoef(a, b)[0, 1]


def by_loops(maps):
    """Every reading as it is defined, mean over pairs of layers."""
    maps = maps.double().numpy()
    mean, images = maps.mean(0), len(maps)
    deviations = maps - mean

    def covariance(of):
        return np.mean([np.cov(each, bias=True) for each in of], axis=0)

    whole, static, image = covariance(maps), covariance(mean[None]), covariance(deviations)
    scale = np.sqrt(np.outer(np.diag(whole), np.diag(whole)))
    others = [(i, j) for i in range(images) for j in range(images) if i != j]
    channel = {(a, b): [r(maps[:, a, c], maps[:, b, c]) for c in range(maps.shape[2])] for a, b in PAIRS}
    found = {
        "pooled_r": [(whole / scale)[pair] for pair in PAIRS],
        "r_from_static": [(static / scale)[pair] for pair in PAIRS],
        "r_from_image": [(image / scale)[pair] for pair in PAIRS],
        "mean_r": [np.mean([r(m[a], m[b]) for m in maps]) for a, b in PAIRS],
        "mean_r_static": [r(mean[a], mean[b]) for a, b in PAIRS],
        "mean_r_image": [np.mean([r(d[a], d[b]) for d in deviations]) for a, b in PAIRS],
        "mean_r_other_image": [np.mean([r(maps[i, a], maps[j, b]) for i, j in others]) for a, b in PAIRS],
        "mean_r_channel": [np.mean(channel[pair]) for pair in PAIRS],
        "mean_abs_r_channel": [np.mean(np.abs(channel[pair])) for pair in PAIRS],
    }
    return {name: np.mean(values) for name, values in found.items()}


def values(stage):
    return {name: number.value for name, number in stage.readings.numbers.items()}


def test_every_reading_equals_a_plain_loop():
    maps = mixed(12)
    found, expected = values(of_maps(maps, 5).stages[0]), by_loops(maps)
    assert min(abs(expected["r_from_static"]), abs(expected["r_from_image"])) > 0.02  # the problem is not trivial
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-10), name


def test_other_image_is_the_exact_mean_over_all_orders_that_leave_no_image_in_its_place():
    maps = mixed(5)
    orders = [order for order in permutations(range(5)) if all(i != j for i, j in enumerate(order))]
    each = [np.mean([r(maps[i, a], maps[j, b]) for i, j in enumerate(order)]) for order in orders for a, b in PAIRS]
    assert np.std(each) > 0.01  # a single order scatters
    assert values(of_maps(maps, 5).stages[0])["mean_r_other_image"] == pytest.approx(np.mean(each), abs=1e-6)


def test_the_parts_add_up_to_the_whole():
    matrices = of_maps(mixed()).stages[0].readings.matrices
    np.testing.assert_allclose(matrices["r_from_static"] + matrices["r_from_image"], matrices["pooled_r"], atol=1e-14)
    np.testing.assert_allclose(np.diag(matrices["pooled_r"]), 1)


def test_the_shares_of_variance_add_up_and_are_those_of_an_analysis_of_variance():
    maps = mixed()
    shares = of_maps(maps).stages[0].readings.by_layer
    layer = maps[:, 1].double().numpy()
    channel, gain = layer.mean(0).var(), layer.mean(1).var()
    assert shares["channel_share"][1] == pytest.approx(channel / layer.var(), abs=1e-9)
    assert shares["gain_share"][1] == pytest.approx(gain / layer.var(), abs=1e-9)
    rest = layer.var() - channel - gain
    assert shares["static_share"][1] == pytest.approx(channel / (channel + rest), abs=1e-9)
    total = sum(shares[name] for name in ("channel_share", "gain_share", "image_share"))
    np.testing.assert_allclose(total, 1, atol=1e-12)


def test_a_fixed_vector_and_noise_are_static():
    maps = torch.rand(CHANNELS) + 0.02 * torch.randn(300, LAYERS, CHANNELS)
    result = of_maps(maps, 100)
    found = values(result.stages[0])
    assert found["mean_r_static"] > 0.99
    assert found["r_from_static"] > 0.95
    assert found["mean_r_other_image"] == pytest.approx(found["mean_r"], abs=0.01)
    assert found["channel_share"] > 0.95
    assert abs(found["mean_r_image"]) < 0.02
    assert abs(found["cka"]) < 0.01
    assert "unrelated" in result.summary()


def test_gates_driven_by_one_feature_of_the_image_are_the_reverse():
    driven = torch.randn(CHANNELS) * (torch.rand(300, 1, 1) - 0.5)
    found = values(of_maps(0.5 + driven + 0.01 * torch.randn(300, LAYERS, CHANNELS), 100).stages[0])
    assert found["r_from_image"] > 0.95
    assert abs(found["r_from_static"]) < 0.05
    assert found["channel_share"] < 0.05
    assert abs(found["mean_r_other_image"]) < 0.05 < 0.8 < found["mean_r_image"]
    assert found["cka"] > 0.95


def test_random_signs_cancel_in_one_reading_and_not_in_the_others():
    """Deviations s_c z_i: not alike channel by channel, and yet the same feature of the image drives all layers."""
    signs = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).repeat(1, CHANNELS // 4)
    assert (signs @ signs.T == CHANNELS * torch.eye(LAYERS)).all()
    result = of_maps(0.5 + 0.3 * signs * (torch.rand(60, 1, 1) - 0.5), 20)
    found = values(result.stages[0])
    assert found["mean_r_image"] == pytest.approx(0, abs=1e-6)
    assert found["mean_abs_r_channel"] == pytest.approx(1, abs=1e-6)
    assert found["cka"] == pytest.approx(1, abs=1e-6)
    assert "not alike channel by channel, yet related" in result.summary()
    assert "unrelated" not in result.summary()


def test_the_stripe_measure_is_each_channels_standard_deviation_over_images():
    maps = mixed()
    stage = of_maps(maps).stages[0]
    std = maps.double().numpy().std(0, ddof=1)
    np.testing.assert_allclose(stage.readings.channel_std, std, atol=1e-7)
    document = stage.to_dict()
    assert document["channel_std"] == pytest.approx(np.median(std, axis=1).tolist(), abs=1e-7)
    relative = np.median(std / np.abs(maps.double().numpy().mean(0)), axis=1)
    assert document["channel_std_over_mean"] == pytest.approx(relative.tolist(), abs=1e-6)


def test_channels_that_never_change_are_left_out_counted_and_saturated_ones_said():
    maps = mixed(30)
    maps[:, 1, 3], maps[:, 1, 5] = 1.0, 0.25
    result = of_maps(maps)
    stage = result.stages[0]
    assert stage.readings.constant_channels() == [[], [3, 5], []]
    assert stage.to_dict()["constant_channels"] == [[], [3, 5], []]
    expected = np.mean([r(maps[:, 0, c], maps[:, 1, c]) for c in range(CHANNELS) if c not in (3, 5)])
    assert stage.readings.matrices["mean_r_channel"][0, 1] == pytest.approx(expected, abs=1e-6)
    assert "2 of 24 channels of layer 2 (4, 6) are the same for every image, 1 of them saturated" in result.summary()


def test_maps_that_are_the_same_for_every_image_have_no_image_dependent_likeness():
    stage = of_maps(torch.rand(1, LAYERS, CHANNELS).expand(20, -1, -1).contiguous(), 10).stages[0]
    found = values(stage)
    assert found["r_from_image"] == pytest.approx(0, abs=1e-12)
    assert np.isnan([found[name] for name in ("mean_r_image", "mean_r_channel", "mean_abs_r_channel", "cka")]).all()
    assert stage.readings.constant_deviations.tolist() == [20] * LAYERS
    assert stage.readings.cka_undefined == LAYERS
    document = stage.to_dict()
    assert (document["mean_r_image"], document["cka"], document["channel_share"]) == (None, None, pytest.approx(1))
    result = of_maps(torch.rand(1, LAYERS, CHANNELS).expand(20, -1, -1).contiguous(), 10)
    assert "The maps differ between images by no more than rounding." in result.summary()


def test_constant_maps_have_no_parts():
    found = values(of_maps(torch.full((8, LAYERS, CHANNELS), 0.3)).stages[0])
    assert np.isnan([found[name] for name in (*FIXED, "channel_share")]).all()


def test_one_image_has_a_static_part_only():
    result = of_maps(mixed(1))
    found = values(result.stages[0])
    assert found["r_from_static"] == pytest.approx(found["pooled_r"])
    assert np.isnan([found[name] for name in ("mean_r_other_image", "mean_r_image", "mean_r_channel", "cka")]).all()
    assert "one image, so nothing shows how the maps depend on the image" in result.summary()


def test_one_layer_has_shares_and_no_pairs():
    stage = of_maps(mixed()[:, :1]).stages[0]
    found = values(stage)
    assert np.isnan([found[name] for name in FIXED]).all()
    assert 0 < found["channel_share"] < 1
    assert stage.to_dict()["by_distance"] == []


def test_images_with_a_map_that_is_not_finite_are_left_out_of_the_parts():
    maps = mixed()
    expected = by_loops(maps[2:])
    maps[0, 1, 2], maps[1, 0, 0] = float("nan"), float("inf")
    stage = of_maps(maps).stages[0]
    assert stage.readings.images == len(maps) - 2
    for name in ("pooled_r", "r_from_image", "mean_r_image", "mean_r_channel"):
        assert stage.readings.numbers[name].value == pytest.approx(expected[name], abs=1e-6)


def test_maps_that_are_never_finite_leave_nothing():
    stage = of_maps(torch.full((8, LAYERS, CHANNELS), float("nan"))).stages[0]
    assert stage.readings.images == 0
    assert all(np.isnan(number.value) for number in stage.readings.numbers.values())


def test_rounding_that_could_explain_the_dependence_on_the_image_is_said():
    maps = 0.5 + 0.4 * torch.rand(CHANNELS) + 1e-3 * torch.randn(100, LAYERS, CHANNELS)
    assert of_maps(maps, 50).stages[0].readings.rounded() == []
    result = of_maps(maps.bfloat16(), 50)
    assert result.stages[0].readings.rounded() == [1, 2, 3]
    assert "rounding explains more than 10 % of how the maps of layers 1, 2, 3 depend" in result.summary()
    assert "The maps differ between images by no more than rounding." in result.summary()


def test_intervals_hold_the_number_and_are_wider_where_images_of_a_patient_are_alike():
    maps = mixed(40).repeat_interleave(5, 0)
    alone = measure_correlation(Gates(LAYERS), maps.split(50)).stages[0].readings.numbers
    names = [f"patient {image // 5}" for image in range(200)]
    together = measure_correlation(Gates(LAYERS), maps.split(50), patients=names).stages[0].readings.numbers
    for name in ("mean_r", "mean_r_static", "r_from_image", "mean_r_channel", "cka", "image_share"):
        assert alone[name].low < alone[name].value < alone[name].high
        assert together[name].value == pytest.approx(alone[name].value, abs=1e-9)
        assert together[name].high - together[name].low > 1.3 * (alone[name].high - alone[name].low), name


def test_fewer_patients_than_images_are_an_error():
    with pytest.raises(AnalysisInputError, match="2 names for 3 images; give one for each image"):
        measure_correlation(Gates(2), [torch.randn(3, 2, 8)], patients=["a", "b"])


def test_sums_of_two_processes_add_up():
    maps, groups = mixed(20), torch.arange(20) // 2
    mean = maps.double().mean(0)

    def summed(metric, *parts):
        for some in parts:
            values = Deviations.of(maps[some]).units if isinstance(metric, DirectionSums) else maps[some]
            metric.update(values, groups[some])
        return metric

    for make in (
        lambda: MapSums(LAYERS, CHANNELS),
        lambda: DirectionSums(LAYERS, CHANNELS),
        lambda: DeviationSums(mean),
    ):
        whole = summed(make(), slice(0, 20)).compute()
        first, second = summed(make(), slice(0, 7)), summed(make(), slice(7, 12), slice(12, 20))
        first.merge_state(second)
        for name, value in first.compute().items():
            np.testing.assert_allclose(value, whole[name], atol=1e-12, err_msg=name)


def test_the_size_of_the_sums_does_not_depend_on_the_images():
    metric = DeviationSums(torch.rand(2, 8, dtype=torch.float64))
    before = {name: value.shape for name, value in metric.metric_state.items()}
    metric.update(torch.rand(500, 2, 8), torch.zeros(500, dtype=torch.int64))
    assert {name: value.shape for name, value in metric.metric_state.items()} == before


def test_maps_that_do_not_fit_are_seen_twice_and_give_the_same(monkeypatch):
    maps = mixed(60)
    whole = measure_correlation(Gates(LAYERS), maps.split(10))
    monkeypatch.setattr(held, "LIMIT", 25 * LAYERS * CHANNELS * 4)
    seen = []
    gates = Gates(LAYERS)
    gates.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    twice = measure_correlation(gates, maps.split(10))
    assert [images for images in seen if images == 10] == [10] * 12  # a watched pass takes two
    one, other = (result.stages[0].readings for result in (whole, twice))
    for name, number in one.numbers.items():
        if not name.startswith("cka"):
            expected = (number.value, number.low, number.high)
            found = other.numbers[name]
            assert (found.value, found.low, found.high) == pytest.approx(expected, abs=1e-9), name
    assert (one.cka_batches, other.cka_batches) == (None, 1)


def test_maps_that_do_not_fit_and_cannot_be_seen_again_have_r_alone(monkeypatch):
    maps = mixed(30)
    monkeypatch.setattr(held, "LIMIT", 1)
    result = measure_correlation(Gates(LAYERS), (part for part in maps.split(10)))
    assert result.mean_r == pytest.approx(of_maps(maps).mean_r)
    assert result.stages[0].readings is None
    assert "cannot be shown again" in result.summary()


def test_large_maps_have_parts_without_intervals(monkeypatch):
    maps = mixed(20)
    expected = by_loops(maps)
    monkeypatch.setattr("dia_analysis.correlation.sums.LARGEST", LAYERS * CHANNELS * 8)
    numbers = of_maps(maps).stages[0].readings.numbers
    assert numbers["pooled_r"].value == pytest.approx(expected["pooled_r"], abs=1e-6)
    assert not numbers["pooled_r"].has_interval
    assert "mean_r_channel" not in numbers


def test_the_distance_profile_is_the_mean_of_the_diagonals():
    stage = of_maps(mixed()).stages[0]
    rows = stage.to_dict()["by_distance"]
    assert [(row["distance"], row["pairs"]) for row in rows] == [(1, 2), (2, 1)]
    assert rows[0]["mean_r"] == pytest.approx((stage.matrix[0, 1] + stage.matrix[1, 2]) / 2)
    assert rows[1]["mean_r"] == pytest.approx(stage.matrix[0, 2])
    assert rows[1]["mean_r_interval"][0] < rows[1]["mean_r"] < rows[1]["mean_r_interval"][1]


def test_rounding_is_that_of_the_coarser_type():
    assert rounding(torch.float32, torch.bfloat16) == 8 * torch.finfo(torch.bfloat16).eps


class Squeezed(nn.Module):
    """Gates of which a sigmoid, or another function, comes last, as a reshaped value."""

    def __init__(self, last):
        super().__init__()
        self.last, self.layers = last, nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = x + x * self.last(layer(x.mean((2, 3)))).view(len(x), -1, 1, 1)
        return x.mean((2, 3))


def test_the_standard_deviation_of_the_logit_is_that_of_what_goes_into_the_sigmoid():
    model, images = Squeezed(torch.sigmoid), torch.randn(10, 4, 3, 3)
    stage = measure_correlation(model, images.split(4)).stages[0]
    with torch.no_grad():
        logits = model.layers[0](images.mean((2, 3))).double()
    # sigmoid(x) in float32 is off by 6e-8, its logit by 6e-8 / (s (1 - s)), with s (1 - s) > 0.04 for |x| < 3.
    np.testing.assert_allclose(stage.readings.logit_std[0], logits.std(0).numpy(), atol=1e-5)
    expected = pytest.approx(float(np.median(logits.std(0))), abs=1e-5)
    assert stage.to_dict()["channel_std_of_logit"][0] == expected
    other = measure_correlation(Squeezed(torch.tanh), images.split(4)).stages[0]
    assert other.readings.logit_std is None
    assert other.to_dict()["channel_std_of_logit"] == [None, None]
