"""Where networks look: planted maps, shares worked out by hand, intervals, masks, and the figure."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

import figures
from dia_analysis import AnalysisInputError, NetworkShares, RegionsResult, compare_regions, measure_regions
from dia_analysis.statistics.intervals import Patients, runs_and_patients
from dia_analysis.xray.regions import (
    MASKS,
    PRIOR,
    border_band,
    mask_regions,
    prior_regions,
    region_areas,
    region_shares,
)
from dia_models import ModelInputError
from dia_models.data.masks import read_mask
from tests.support.commands import SE, analyze, failure
from tests.support.xray_data import chest_xray, network

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("size", [(20, 20), (64, 64), (7, 11), (224, 180), (1, 1)])
def test_every_pixel_is_in_one_region(size):
    found = prior_regions(size)
    assert found.shape == (1, len(PRIOR), *size)
    assert (found.sum(1) == 1).all()


def test_the_regions_by_hand():
    """Of 20 pixels a side the border takes 2 at each end; columns 2 to 7, 8 to 11 and 12 to 17, rows 2 to 15 or 17."""
    left, right, center, elsewhere, border = prior_regions((20, 20))[0]
    assert left[2:16, 2:8].all()
    assert right[2:16, 12:18].all()
    assert center[2:18, 8:12].all()
    assert [r.sum() for r in (left, right, center, elsewhere)] == [14 * 6, 14 * 6, 16 * 4, 2 * 2 * 6]
    assert border.sum() == 400 - 16 * 16
    assert (border == border_band((20, 20))).all()


def test_a_map_wholly_inside_one_region_gives_one_there_and_zero_elsewhere():
    regions = prior_regions((40, 40))
    for number in range(len(PRIOR)):
        planted = regions[:, number].astype(np.float32) * 0.3
        assert region_shares(planted, regions)[0].tolist() == pytest.approx(np.eye(len(PRIOR))[number].tolist())


def test_a_uniform_map_gives_the_areas():
    regions = prior_regions((50, 50))
    uniform = np.full((3, 50, 50), 7.0, dtype=np.float32)
    np.testing.assert_allclose(region_shares(uniform, regions), region_areas(regions, 3))
    np.testing.assert_allclose(region_areas(regions, 1)[0], [0.21, 0.21, 0.16, 0.06, 0.36])


def test_shares_equal_a_loop_and_empty_maps_have_none():
    random = np.random.default_rng(0)
    maps, lungs = random.random((4, 9, 8)).astype(np.float32), random.random((4, 9, 8)) < 0.3
    maps[2] = 0
    regions = mask_regions(lungs)
    found = region_shares(maps, regions)
    assert np.isnan(found[2]).all()
    for i in (0, 1, 3):
        inside = sum(float(maps[i, y, x]) for y in range(9) for x in range(8) if lungs[i, y, x])
        assert found[i, 0] == pytest.approx(inside / maps[i].sum(), rel=1e-6)
        assert found[i, 0] + found[i, 1] == pytest.approx(1)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_what_is_no_evidence_is_refused(bad):
    maps = np.ones((1, 4, 4), dtype=np.float32)
    maps[0, 1, 1] = bad
    with pytest.raises(AnalysisInputError, match="evidence must be finite and not negative"):
        region_shares(maps, prior_regions((4, 4)))


def member(name, left, correct, network="net"):
    """Maps with the share `left` in the left field and the rest at the border; None for an empty map."""
    rows = [[np.nan] * 5 if share is None else [share, 0, 0, 0, 1 - share] for share in left]
    return NetworkShares(name, network, np.array(rows), np.array(correct))


def result(*members, patients=("a", "a", "b", "c"), **changes):
    regions = prior_regions((20, 20))
    given = {
        "source": "prior",
        "regions": PRIOR,
        "image_names": tuple(f"{i}.png" for i in range(len(patients))),
        "patients": patients,
        "areas": region_areas(regions, len(patients)),
        "outlines": regions[0].astype(float),
        "members": members,
    }
    return RegionsResult(**given | changes)


def test_means_by_hand_split_by_right_and_wrong():
    found = result(member("a", [0.2, 0.4, None, 0.9], [True, True, True, False]))
    assert found.shares("a")["left_field"].share.value == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert found.shares("a", "correct")["left_field"].share.value == pytest.approx(0.3)
    assert found.shares("a", "wrong")["border"].share.value == pytest.approx(0.1)
    assert found.shares("a")["left_field"].ratio == pytest.approx(0.5 / 0.21)
    document = found.to_dict()
    json.dumps(document, allow_nan=False)
    (net,) = document["networks"]
    assert [(net[s]["maps"], net[s]["empty"]) for s in ("all", "correct", "wrong")] == [(3, 1), (2, 1), (1, 0)]
    assert (document["schema"], document["approximate"]) == ("dia.regions/1", True)
    assert "1 of 4 maps are zero everywhere and left out" in found.summary()
    assert "an approximation" in found.summary()


def test_a_subset_without_maps_is_not_defined():
    found = result(member("a", [0.2, 0.4, 0.1, None], [True, True, True, False]))
    share = found.shares("a", "wrong")["border"]
    assert share.to_dict() == {
        "share": {"value": None, "low": None, "high": None, "images": 0, "right": None},
        "area": None,
        "ratio": None,
    }
    assert "no maps" in found.summary()
    Figure().subplots()
    figures.region_shares(found, np.zeros((20, 20), dtype=np.uint8))


def test_images_of_one_patient_widen_the_interval():
    shares = np.repeat(np.random.default_rng(0).random(12), 5).tolist()
    one = member("a", shares, [True] * 60)
    alone = result(one, patients=tuple(f"p{i}" for i in range(60))).shares("a")["border"].share
    together = result(one, patients=tuple(f"p{i // 5}" for i in range(60))).shares("a")["border"].share
    assert alone.value == together.value
    assert together.high - together.low > 1.6 * (alone.high - alone.low)


def test_runs_of_one_network_are_taken_together_and_their_spread_counts():
    patients = tuple(f"p{i}" for i in range(40))
    steady = 0.5 + 0.02 * np.random.default_rng(0).random(40)
    runs = [member(f"s{k}", steady + 0.2 * k, [True] * 40) for k in (-1, 0, 1)]
    found = result(*runs, patients=patients)
    assert list(found.networks) == ["net"]
    together = found.shares("net")["left_field"].share
    single = result(runs[1], patients=patients).shares("s0")["left_field"].share
    assert together.value == pytest.approx(single.value)
    assert single.high - single.low < 0.01
    assert together.high - together.low > 0.2  # the runs differ by 0.2 each
    assert "net, 3 runs" in found.summary()


def test_intervals_are_those_of_runs_and_patients():
    shares = np.random.default_rng(0).random((3, 24))
    shares[1, 5] = np.nan
    runs = [member(f"s{k}", [None if np.isnan(v) else v for v in row], [True] * 24) for k, row in enumerate(shares)]
    patients = tuple(f"p{i // 2:02d}" for i in range(24))
    three = result(*runs, patients=patients)
    found = three.shares("net")["left_field"].share
    assert found == runs_and_patients(shares, Patients.named(patients))
    assert (
        "Intervals say what to expect of other runs and other patients." in result(*runs, patients=patients).summary()
    )
    two = result(*runs[:2], patients=patients)
    assert "Intervals say what to expect of the same runs, other patients." in two.summary()


def test_two_images_have_no_interval_and_unknown_patients_are_not_called_so():
    found = result(member("a", [0.2281, 0.2285], [True, True]), patients=("0.png", "1.png"))
    text = found.summary()
    assert text.startswith("Where the evidence of 2 images lies")
    assert "0.228 n=2 1.09x" in text
    assert "fewer than 10 patients (too few for one)" in text
    assert "taken as independent (no patient IDs)" in text
    assert found.to_dict()["networks"][0]["all"]["regions"]["border"]["share"]["low"] is None
    *_, other, few = replace(found, source="masks").notes()  # of any pictures
    assert other == "Intervals say what to expect of the same run, other images."
    assert few == "A number without an interval is over fewer than 10 images (too few for one), or never varies."
    figures.region_shares(found, np.zeros((20, 20), dtype=np.uint8))


def test_a_mask_of_each_image_has_an_area_of_its_own():
    lungs = np.zeros((2, 20, 20), dtype=bool)
    lungs[0, :10], lungs[1, :5] = True, True
    regions = mask_regions(lungs)
    shares = region_shares(np.ones((2, 20, 20), dtype=np.float32), regions)
    one = NetworkShares("a", "net", shares, np.array([True, False]))
    found = result(
        one,
        patients=("a", "b"),
        source="masks",
        regions=MASKS,
        areas=region_areas(regions, 2),
        outlines=regions.mean(0),
    )
    assert found.shares("a")["mask"].area == pytest.approx((0.5 + 0.25) / 2)
    for subset, area in (("correct", 0.5), ("wrong", 0.25)):
        lung = found.shares("a", subset)["mask"]
        assert (lung.area, lung.ratio) == (pytest.approx(area), pytest.approx(1))


def test_shares_of_other_images_are_refused():
    with pytest.raises(AnalysisInputError, match=r"a has shares of shape \(3, 5\), the areas \(4, 5\)"):
        result(member("a", [0.1, 0.2, 0.3], [True] * 3))
    with pytest.raises(AnalysisInputError, match="there is no network"):
        result()


def test_saved_and_read_again(tmp_path):
    found = result(member("a", [0.2, 0.4, None, 0.9], [True, True, True, False]))
    path = found.save(tmp_path / "out")
    assert json.loads((path / "regions.json").read_text()) == found.to_dict()
    with xr.open_dataset(path / "regions.nc") as arrays:
        assert arrays["shares"].sel(checkpoint="a", image="3.png", region="left_field") == pytest.approx(0.9)
        assert arrays["patient"].values.tolist() == ["a", "a", "b", "c"]
    assert "regions.json" in json.loads((path / "manifest.json").read_text())["files"]
    with pytest.raises(AnalysisInputError, match="exists"):
        found.save(path)


def test_the_figure_shows_regions_areas_and_the_approximation():
    found = result(
        member("a", [0.2, 0.4, 0.5, 0.9], [True, True, True, False]),
        member("b", [0.3, 0.4, 0.5, 0.6], [True] * 4, network="other"),
    )
    figure = figures.region_shares(found, np.full((20, 20), 90, dtype=np.uint8))
    outline, *panels = figure.axes
    assert outline.get_title().startswith("Regions: an approximation")
    assert {text.get_text() for text in outline.texts} == {"left\nfield", "right\nfield", "center", "border"}
    assert [ax.get_title() for ax in panels] == [
        "All images (8 maps)", "Classified rightly (7 maps)", "Classified wrongly (1 map)",
    ]  # fmt: skip
    bars = panels[0].collections
    heights = [segment[0][1] for bar in bars for segment in getattr(bar, "get_segments", list)() if len(segment) == 2]
    assert pytest.approx(0.36) in heights  # the border's area
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["uniform map (area)", "a", "b"]


# the function


class Quadrants(torch.nn.Module):
    """Two classes: the features are the image and what is left of it; each class sums one of them."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(1, 2, 1, bias=False)
        self.features.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
        self.relu = torch.nn.ReLU()

    def forward(self, x):
        return self.relu(self.features(x)).sum((2, 3))


def bright(*places, size=10):
    """Images that are bright in one pixel each, of class 0, or dark there (-1), of class 1."""
    images = torch.zeros(len(places), 1, size, size)
    for image, (row, column, value) in zip(images, places, strict=True):
        image[0, row, column] = value
    return images


def test_evidence_lies_where_the_only_bright_pixel_is():
    images = bright((5, 2, 1.0), (5, 7, 1.0), (0, 0, -1.0))
    labels = torch.tensor([0, 1, 1])
    found = measure_regions(
        Quadrants(), [(images[:2], labels[:2]), (images[2:], labels[2:])], layer="relu", model_name="net"
    )
    assert found.regions == PRIOR
    assert found.image_names == ("#0", "#1", "#2")
    (member,) = found.members
    wanted = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_allclose(member.shares, wanted)
    assert member.correct.tolist() == [True, False, True]
    assert found.layer == "relu"
    assert found.areas[0] == pytest.approx(prior_regions((10, 10))[0].mean((1, 2)))


def test_masks_come_as_one_array_or_batch_by_batch_and_count_the_pixels_in_them():
    images = bright((1, 1, 1.0), (8, 8, 1.0), (8, 1, 1.0))
    masks = np.zeros((3, 10, 10), dtype=bool)
    masks[:, :5] = True
    masks[2, 5:] = True
    batches = [images[:2], images[2:]]
    whole, parts = (
        measure_regions(Quadrants(), batches, given, layer="relu") for given in (masks, [masks[:2], masks[2:]])
    )
    for found in (whole, parts):
        assert found.members[0].shares[:, 0].tolist() == [1, 0, 1]
        assert found.areas[:, 0].tolist() == [0.5, 0.5, 1]
        assert found.outlines[0, 7, 3] == pytest.approx(1 / 3)
        assert found.members[0].correct is None
        assert np.isnan(found.shares("network", "correct")["mask"].share.value)
        assert found.to_xarray()["correct"].values.tolist() == [[-1, -1, -1]]
    with pytest.raises(AnalysisInputError, match="masks of shape 2x10x10 given for images of 1x10x10"):
        measure_regions(Quadrants(), [images[:1]], [masks[:2]], layer="relu")
    with pytest.raises(AnalysisInputError, match="masks of shape none given for images of 1x10x10"):
        measure_regions(Quadrants(), batches, [masks[:2]], layer="relu")
    with pytest.raises(AnalysisInputError, match="there are no images to explain"):
        measure_regions(Quadrants(), [])


def test_networks_on_the_same_images_stand_side_by_side():
    images = bright((5, 2, 1.0), (5, 7, 1.0))
    one, two = (measure_regions(Quadrants(), images, layer="relu", model_name=name) for name in "ab")
    both = compare_regions([one, two])
    assert list(both.networks) == ["a", "b"]
    other = measure_regions(Quadrants(), images[:1], layer="relu", model_name="c")
    with pytest.raises(AnalysisInputError, match="c was measured on other images or regions than a"):
        compare_regions([one, other])
    with pytest.raises(AnalysisInputError, match="there is no network"):
        compare_regions([])


# the command


@pytest.fixture
def data(tmp_path):
    return chest_xray(tmp_path / "data")


def shown(capsys, data, *arguments):
    assert analyze("regions", *arguments, "--data", "chest-xray", "--data-dir", data, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_measures_what_gradcam_gives(tmp_path, data, capsys):
    ckpt, other = (network(tmp_path / f"net-{seed}.safetensors", seed=seed) for seed in (0, 1))
    out = tmp_path / "out"
    document = shown(capsys, data, "--ckpt", ckpt, "--ckpt", other, "--out", out)
    assert (document["images"], document["patients"]) == (16, 8)
    (net,) = document["networks"]
    assert [c["name"] for c in net["checkpoints"]] == ["net-0", "net-1"]
    assert net["correct"]["maps"] + net["wrong"]["maps"] == net["all"]["maps"] == 32 - net["all"]["empty"]
    shares = [r["share"]["value"] for r in net["all"]["regions"].values()]
    assert sum(shares) == pytest.approx(1)
    files = {path.name for path in out.iterdir()}
    assert files == {"regions.json", "regions.nc", "regions.png", "regions.pdf", "manifest.json"}

    options = ("--data", "chest-xray", "--data-dir", data, "--images", 16, "--json", "--out", tmp_path / "cam")
    assert analyze("gradcam", "--ckpt", ckpt, *options) == 0
    capsys.readouterr()
    with xr.open_dataset(tmp_path / "cam" / "maps.nc") as arrays, xr.open_dataset(out / "regions.nc") as found:
        maps = arrays["maps"].sel(model="net-0")
        expected = region_shares(maps.values, prior_regions((16, 16)))
        names = arrays["image"].values.tolist()
        np.testing.assert_allclose(found["shares"].sel(checkpoint="net-0", image=names), expected, atol=1e-4)


def masks(data, folder, pixels):
    for path in sorted((data / "chest_xray" / "test").rglob("*.png")):
        target = folder / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target)
    return folder


@pytest.mark.usefixtures("_undrawn")
def test_masks_are_cut_as_the_image_and_missing_ones_left_out(tmp_path, data, capsys):
    pixels = np.zeros((40, 40), dtype=np.uint8)
    pixels[:, :20] = 1  # half the picture, at twice its size; any grey level but black marks lung
    folder = masks(data, tmp_path / "masks", pixels)
    (folder / "NORMAL" / "IM-0500-0000.png").unlink()
    ckpt = network(tmp_path / "net.safetensors")
    document = shown(capsys, data, "--ckpt", ckpt, "--masks", folder, "--out", tmp_path / "out")
    assert (document["images"], document["without_mask"]) == (15, ["NORMAL/IM-0500-0000.png"])
    assert (document["source"], document["approximate"]) == ("masks", False)
    regions = document["networks"][0]["all"]["regions"]
    assert set(regions) == set(MASKS)
    assert regions["mask"]["area"] == pytest.approx(0.5)
    assert regions["mask"]["share"]["value"] + regions["outside_mask"]["share"]["value"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.ones((20, 40), np.uint8), "has 40x20 pixels, its image 20x20; a mask may be larger or smaller than its"),
        (np.zeros((20, 20), np.uint8), "marks nothing in the part of"),
    ],
)
def test_masks_that_do_not_fit_are_one_line(pixels, message, tmp_path, data, capsys):
    folder = masks(data, tmp_path / "masks", pixels)
    ckpt = network(tmp_path / "net.safetensors")
    run = ("regions", "--ckpt", ckpt, "--data-dir", data, "--out", tmp_path / "out")
    assert message in (line := failure(capsys, analyze(*run, "--masks", folder)))
    assert line.startswith("error: --masks: ")
    assert not (tmp_path / "out").exists()


def test_no_masks_at_all_say_what_is_looked_for(tmp_path, data, capsys):
    ckpt = network(tmp_path / "net.safetensors")
    run = ("regions", "--ckpt", ckpt, "--data-dir", data, "--out", tmp_path / "out", "--masks")
    (tmp_path / "empty").mkdir()
    assert "has a mask of no image; that of the first would be" in failure(capsys, analyze(*run, tmp_path / "empty"))
    assert "there is no file or folder" in failure(capsys, analyze(*run, tmp_path / "nowhere"))
    code = analyze("regions", "--ckpt", SE, "--masks", tmp_path / "empty", "--out", tmp_path / "out")
    assert "the images of this data set are not files" in failure(capsys, code)


def test_other_pictures_have_no_lung_fields(tmp_path, capsys):
    message = failure(capsys, analyze("regions", "--ckpt", SE, "--images", 2, "--out", tmp_path / "out"))
    assert message.startswith("error: --masks: none given, and digits has no chest X-rays")
    assert len(message) <= 300
    assert not (tmp_path / "out").exists()


def test_an_unreadable_mask_is_one_line(tmp_path, data):
    (tmp_path / "mask.png").write_bytes(b"no image")
    image = next((data / "chest_xray" / "test").rglob("*.png"))
    with pytest.raises(ModelInputError, match=r"mask\.png cannot be read as a PNG mask of"):
        read_mask(tmp_path / "mask.png", image, (8, 8))


def test_a_mask_is_cropped_with_its_image(tmp_path):
    """A picture twice as wide as high loses a quarter at each side; so does a mask, at any scale."""
    Image.new("L", (40, 20)).save(tmp_path / "image.png")
    pixels = np.zeros((10, 20), dtype=np.uint8)
    pixels[:, 5:10] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", tmp_path / "image.png", (10, 10))
    assert mask[:, :5].all()
    assert not mask[:, 5:].any()


@pytest.mark.usefixtures("_undrawn")
def test_unreadable_images_are_left_out_of_everything(tmp_path, data, capsys):
    (data / "chest_xray" / "test" / "NORMAL" / "IM-0999-0001.png").write_bytes(b"no image")
    ckpt = network(tmp_path / "net.safetensors")
    document = shown(capsys, data, "--ckpt", ckpt, "--out", tmp_path / "out", "--trust")
    assert document["images"] == 16
    assert document["trust"]["images"] == 16
    assert len(document["trust"]["models"]) == 1
    assert "trust-net.png" in {path.name for path in (tmp_path / "out").iterdir()}


def test_networks_of_one_name_but_other_options_are_not_runs_of_one(data):
    one = member("a", [0.2, 0.4, 0.5, 0.9], [True] * 4)
    two = replace(one, name="b", network="net (reduction=4)")
    assert list(result(one, two).networks) == ["a", "b"]


def test_images_without_labels_have_regions_too(tmp_path, capsys):
    folder = tmp_path / "loose"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 16), np.uint8)).save(
            folder / f"{number}.png"
        )
    given = ["--model", "cifar_resnet11", "--num-classes", "3", "--image-size", "8", "--data", f"folder:{folder}"]
    assert analyze("regions", *given, "--target", "1", "--json", "--out", tmp_path / "out") == 0
    document = json.loads(capsys.readouterr().out)
    (found,) = document["networks"]
    assert (found["all"]["maps"] + found["all"]["empty"], found["correct"]["maps"]) == (3, 0)
    assert analyze("regions", *given, "--target", "5", "--out", tmp_path / "other") == 1
    assert "'5' is no class; " in capsys.readouterr().err
