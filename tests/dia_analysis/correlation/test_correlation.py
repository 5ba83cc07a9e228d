"""Pearson's r between layers: against numpy and scipy, by hand, streamed, degenerate, and end to end."""

import itertools
import json

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from dia_analysis import AnalysisInputError, PearsonBetweenLayers, capture, measure_correlation, pearson
from dia_models import create_model
from dia_models.attention import attention_names
from tests.support.gates import Gates, of_maps

pytestmark = pytest.mark.numeric


def numpy_loop(maps):
    """r of every (image, layer pair), one numpy.corrcoef at a time."""
    pairs = list(itertools.combinations(range(maps.shape[1]), 2))
    return np.array([[np.corrcoef(image[a], image[b])[0, 1] for a, b in pairs] for image in maps])


def test_r_by_hand():
    """Deviations (-1, 0, 1) and (-1, 1, 0): products sum to 1, lengths are sqrt(2) each, so r = 1/2."""
    r, defined = pearson(torch.tensor([[[1.0, 2.0, 3.0], [4.0, 6.0, 5.0]]]))
    assert r[0, 0, 1].item() == pytest.approx(0.5, abs=1e-15)
    assert defined.all()


@pytest.mark.parametrize(
    ("second", "expected"), [([2.0, 4.0, 6.0], 1.0), ([3.0, 1.0, -1.0], -1.0), ([1.0, -2.0, 1.0], 0.0)]
)
def test_r_of_1_minus_1_and_0_by_construction(second, expected):
    r, _ = pearson(torch.tensor([[[1.0, 2.0, 3.0], second]]))
    assert r[0, 0, 1].item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("offset", [0.0, 0.5, 8.0])
def test_r_equals_scipy_for_any_type_and_offset(dtype, offset):
    maps = (torch.randn(4, 3, 20) + offset).to(dtype)
    r, defined = pearson(maps)
    assert defined.all()
    for image, a, b in itertools.product(range(4), range(3), range(3)):
        values = maps[image].double().numpy()
        assert r[image, a, b].item() == pytest.approx(scipy.stats.pearsonr(values[a], values[b])[0], abs=1e-12)


def test_r_of_a_large_mean_and_a_small_spread_equals_numpys_in_float64():
    """float32 maps around 1,000 whose spread is 1e-3 of that: sums of squares in float32 would keep no digit."""
    maps = torch.randn(5, 4, 64) + 1000
    metric = PearsonBetweenLayers(4)
    metric.update(maps)
    expected = numpy_loop(maps.double().numpy())
    assert expected.std() > 0.05  # the problem is not trivial
    assert metric.compute()["mean_r"] == pytest.approx(expected.mean(), abs=1e-10)


@pytest.mark.parametrize("bad", [0.1, 0.0, 1e30, float("nan"), float("inf")])
def test_constant_and_non_finite_maps_have_no_r(bad):
    maps = torch.randn(2, 3, 64)
    maps[1, 2] = bad
    r, defined = pearson(maps)
    assert defined[0].all()
    assert defined[1].tolist() == [[True, True, False], [True, True, False], [False, False, False]]
    assert r[1, 2].isnan().all()


TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def around(size, dtype, middle=0.5, channels=64):
    """Two maps of so many roundings of `dtype` around a number, and one that varies."""
    signs = torch.where(torch.rand(2, channels) < 0.5, -1.0, 1.0).double()
    near = middle + signs * size * torch.finfo(dtype).eps * middle
    return torch.cat([near, torch.rand(1, channels).double()])[None].to(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("middle", [0.5, 1.0, 1e-3])
def test_maps_that_differ_by_rounding_alone_are_constant(dtype, middle):
    maps = around(1, dtype, middle)
    assert (maps[0, :2].unique().numel()) > 1  # they differ
    r, defined = pearson(maps)
    assert r[0, 0, 1].isnan()
    assert defined[0].sum() == 1
    assert defined[0, 2, 2]


@pytest.mark.parametrize("dtype", TYPES)
def test_maps_that_differ_by_many_roundings_have_an_r(dtype):
    maps = around(16, dtype)
    r, defined = pearson(maps)
    assert defined.all()
    assert r[0, 0, 1].item() == pytest.approx(np.corrcoef(maps[0, 0].double(), maps[0, 1].double())[0, 1], abs=1e-12)


def test_the_type_in_which_maps_were_made_counts_and_not_that_in_which_they_are_kept():
    maps = around(1, torch.float16)
    assert not pearson(maps.float(), torch.float16)[1][0, 0, 1]
    assert pearson(maps.float())[1].all()  # made in float32, they would differ by more than rounding
    assert not pearson(around(1, torch.float32).half().float(), torch.float32)[1][0, 0, 1]  # rounded away


def test_constant_and_unfit_maps_are_counted_by_layer_and_named():
    maps = torch.rand(5, 4, 64)
    maps[:2, 1] = around(1, torch.float32)[0, 0]
    maps[3:, 2], maps[3:, 3] = float("nan"), float("inf")
    result = of_maps(maps)
    stage = result.stages[0]
    assert stage.constant.tolist() == [0, 2, 0, 0]
    assert stage.not_finite.tolist() == [0, 0, 2, 2]
    assert (stage.to_dict()["constant"], stage.to_dict()["not_finite"]) == ([0, 2, 0, 0], [0, 0, 2, 2])
    assert stage.undefined == 2 * 3 + 2 * 5
    assert (
        "the map of layer 2 (layers.1.gate) is constant on 2 of 5 images; the map of each of layers 3, 4 (the first "
        in (result.summary())
    )


def test_a_nearly_constant_map_still_has_its_r():
    base = torch.full((64,), 0.5, dtype=torch.float64)
    wiggle = torch.randn(64, dtype=torch.float64)
    r, defined = pearson(torch.stack([base + 1e-9 * wiggle, wiggle])[None])
    assert defined.all()
    assert r[0, 0, 1].item() == pytest.approx(1.0, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(3, 30), st.integers(1, 7))
def test_streamed_statistics_equal_a_numpy_loop(seed, layers, channels, images):
    maps = torch.from_numpy(np.random.default_rng(seed).normal(size=(images, layers, channels)))
    values = numpy_loop(maps.numpy())
    metric = PearsonBetweenLayers(layers)
    for part in maps.split(2):
        metric.update(part)
    found = metric.compute()
    assert found["mean_r"] == pytest.approx(values.mean(), abs=1e-12)
    assert found["std_r"] == pytest.approx(values.std(), abs=1e-7)
    assert found["median_r"] == pytest.approx(np.median(values), abs=2e-5)
    assert found["share_above_0_8"] == (values > 0.8).mean()
    assert (found["pairs"], found["undefined"]) == (values.size, 0)
    above = found["matrix"][np.triu_indices(layers, 1)]
    np.testing.assert_allclose(above, values.mean(0), atol=1e-12)
    np.testing.assert_allclose(found["matrix"], found["matrix"].T)
    np.testing.assert_allclose(np.diag(found["matrix"]), 1.0)


def test_the_result_does_not_depend_on_the_batch_size():
    maps = torch.randn(17, 3, 10)
    one, many = of_maps(maps, 1).to_dict(), of_maps(maps, 17).to_dict()
    assert one["stages"][0]["mean_r"] == pytest.approx(many["stages"][0]["mean_r"], abs=1e-14)
    assert one["stages"][0]["median_r"] == many["stages"][0]["median_r"]


def test_the_state_does_not_grow_with_the_images():
    metric = PearsonBetweenLayers(3)
    metric.update(torch.randn(2, 3, 8))
    before = {name: value.shape for name, value in metric.metric_state.items()}
    metric.update(torch.randn(500, 3, 8))
    assert {name: value.shape for name, value in metric.metric_state.items()} == before


def test_two_processes_states_add_up():
    maps = torch.randn(10, 3, 8)
    whole, first, second = (PearsonBetweenLayers(3) for _ in range(3))
    whole.update(maps)
    first.update(maps[:4])
    second.update(maps[4:])
    first.merge_state(second)
    a, b = whole.compute(), first.compute()
    assert a["mean_r"] == pytest.approx(b["mean_r"], abs=1e-14)
    assert (a["histogram"] == b["histogram"]).all()


def test_undefined_pairs_are_counted_and_left_out_of_the_mean():
    maps = torch.randn(5, 3, 8)
    maps[0, 1] = 0.3
    stage = of_maps(maps).stages[0]
    assert (stage.pairs, stage.undefined) == (15, 2)
    expected = [
        np.corrcoef(m[a], m[b])[0, 1]
        for m in maps.double().numpy()
        for a, b in ((0, 1), (0, 2), (1, 2))
        if np.ptp(m[a]) and np.ptp(m[b])
    ]
    assert len(expected) == 13
    assert stage.mean_r == pytest.approx(np.mean(expected), abs=1e-12)
    assert "2 of 15 pairs (13.3%) have no r" in of_maps(maps).summary()


def test_maps_that_are_always_constant_give_no_number_and_no_nan_in_json():
    result = of_maps(torch.ones(4, 2, 8))
    stage = result.to_dict()["stages"][0]
    assert (stage["mean_r"], stage["std_r"], stage["median_r"], stage["share_above_0_8"]) == (
        None,
        None,
        None,
        None,
    )
    assert stage["matrix"] == [[None, None], [None, None]]
    assert (stage["pairs"], stage["undefined"], result.mean_r) == (4, 4, None)
    json.dumps(result.to_dict(), allow_nan=False)


def test_one_layer_has_no_pair_and_says_so():
    result = of_maps(torch.randn(3, 1, 8))
    assert (result.stages[0].pairs, result.mean_r) == (0, None)
    assert "one attention layer (layers.0.gate), so there is no pair to correlate" in result.summary()


def test_one_image_is_enough():
    maps = torch.randn(1, 3, 8)
    assert of_maps(maps).mean_r == pytest.approx(numpy_loop(maps.double().numpy()).mean(), abs=1e-12)


def test_no_images_is_an_error():
    with pytest.raises(AnalysisInputError, match="no images to analyze"):
        measure_correlation(Gates(2), [])


@pytest.mark.parametrize("name", ["cifar_resnet29_se", "cifar_resnet29_eca", "cifar_resnet29_dia_lstm"])
def test_end_to_end_equals_a_numpy_loop_over_captured_maps(name):
    model = create_model(name).eval()
    images = torch.randn(6, 3, 16, 16)
    result = measure_correlation(model, [(images[:4], None), (images[4:], None)])
    with capture(model) as records, torch.no_grad():
        model(images)
    values = list(records.values())
    for number, stage in enumerate(result.stages):
        maps = torch.stack(values[3 * number : 3 * number + 3], 1).double().numpy()
        expected = numpy_loop(maps)
        assert stage.channels == maps.shape[2]
        assert stage.mean_r == pytest.approx(expected.mean(), abs=1e-6)
        assert stage.std_r == pytest.approx(expected.std(), abs=1e-6)
        np.testing.assert_allclose(stage.matrix[np.triu_indices(3, 1)], expected.mean(0), atol=1e-6)
    assert result.mean_r == pytest.approx(np.mean([s.mean_r for s in result.stages]), abs=1e-9)
    assert result.num_images == 6


@pytest.mark.parametrize("name", [name for name in attention_names() if not name.startswith("asr_")])  # of no image
def test_the_maps_of_every_attention_module_are_found(name):
    stages = measure_correlation(create_model(f"cifar_resnet20_{name}"), [torch.randn(2, 3, 16, 16)]).stages
    # 64 groups: in the first stage, of 64 channels, one for each channel
    other = {"cbam": ["channel"] * 3 + ["spatial"] * 3, "sge": ["map", "spatial", "spatial"]}
    assert [stage.kind for stage in stages] == other.get(name.removeprefix("dia_"), ["channel"] * 3)
    assert [len(stage.layers) for stage in stages] == [2] * len(stages)


def test_a_shared_modules_calls_are_its_layers():
    result = measure_correlation(create_model("cifar_resnet29_dia_eca"), [torch.randn(2, 3, 16, 16)])
    assert [stage.layers for stage in result.stages][1] == tuple(("stages.1.attention.gate", c) for c in range(3))


def test_the_network_is_left_as_it_was():
    model = create_model("cifar_resnet20_se")
    model.stages[0].eval()
    modes = [m.training for m in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_correlation(model, [torch.randn(2, 3, 16, 16)])
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_other_points_can_be_named():
    model = create_model("cifar_resnet20_dia_lstm")
    result = measure_correlation(model, [torch.randn(2, 3, 16, 16)], points="*.cell_state")
    assert result.stages[0].layers[0] == ("stages.0.attention.cells.0.cell_state", 0)


def test_features_are_no_attention_maps():
    with pytest.raises(AnalysisInputError, match=r"stem.2 gives \(2, 16, 16, 16\), which is no attention map"):
        measure_correlation(create_model("cifar_resnet20_se"), [torch.randn(2, 3, 16, 16)], points="stem.2")


def test_the_json_document_has_the_fields_of_its_schema():
    document = of_maps(torch.randn(4, 3, 8)).to_dict()
    assert document["schema"] == "dia.correlation/2"
    assert {"checkpoint", "data", "images", "mean_r", "stages"} <= document.keys()
    stage = document["stages"][0]
    fields = "stage layers channels mean_r std_r median_r share_above_0_8 pairs undefined matrix"
    assert set(fields.split()) <= stage.keys()
    assert (stage["stage"], stage["layers"], stage["channels"], stage["pairs"]) == (1, 3, 8, 12)


def test_a_saved_result_is_complete_labelled_and_never_overwritten_unasked(tmp_path):
    maps = torch.randn(4, 3, 8)
    result = of_maps(maps)
    folder = result.save(tmp_path / "out")
    with xr.open_dataset(folder / "stage1.nc") as arrays:
        np.testing.assert_allclose(arrays["matrix"], result.stages[0].matrix)
        assert arrays["layer"].values.tolist() == ["layers.0.gate#0", "layers.1.gate#0", "layers.2.gate#0"]
        assert float(arrays["histogram"].sum()) == 12
        np.testing.assert_allclose(arrays["examples"], maps)
    assert json.loads((folder / "correlation.json").read_text()) == json.loads(json.dumps(result.to_dict()))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"].keys() == {*("correlation.json", "stage1.nc", "correlation.png", "correlation.pdf")}
    with pytest.raises(AnalysisInputError, match="exists; choose another folder"):
        result.save(folder)
    result.save(folder, overwrite=True)
