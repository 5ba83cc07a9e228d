"""dia-analyze gradcam: what it prints and writes, how it fails; and Fig. 9."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import figures
from dia_analysis import gradcam
from dia_analysis.explain.overlay import STRENGTH, overlay, shared_peak
from dia_models import Checkpoint, ModelInputError, create_model
from dia_models.data import evenly_spaced, open_data, open_files
from tests.support.commands import LSTM, SE, analyze, failure, plain_checkpoint


def written(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_two_checkpoints_side_by_side(tmp_path, capsys):
    out = tmp_path / "out"
    assert analyze("gradcam", "--ckpt", SE, "--ckpt", LSTM, "--images", 3, "--out", out) == 0
    text, err = capsys.readouterr()
    assert "image  label  network                   predicted  score  target  its score  map's peak" in text
    assert f"{SE}: maps of the layer stages.2.blocks.5, 2x2 positions." in text
    assert f"{LSTM}: maps of the layer stages.2.blocks.5, 2x2 positions." in text
    assert f"written to {out}/" in err
    assert "\x1b" not in text + err
    overlays = {name for name in written(out) if name.startswith("overlays/")}
    assert len(overlays) == 6
    assert written(out) - overlays == {
        "fig9-gradcam.png",
        "fig9-gradcam.pdf",
        "gradcam.json",
        "maps.nc",
        "manifest.json",
    }
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["files"]) == written(out) - {"manifest.json"}
    assert [m["checkpoint_sha256"] for m in manifest["models"]] == [Checkpoint.read(n).sha256 for n in (SE, LSTM)]
    with Image.open(out / min(overlays)) as overlay:
        assert overlay.size == (224, 224)


@pytest.mark.usefixtures("_undrawn")
def test_the_json_document_is_what_python_gives(tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--images", 5, "--target", 3, "--layer", "stages.1", "--json", "--out", out)
    assert analyze("gradcam", "--ckpt", SE, *options) == 0
    document = json.loads(capsys.readouterr().out)
    checkpoint, source = Checkpoint.read(SE), open_data("digits", "test")
    order = [int(image["path"].removeprefix("#")) for image in document["images"]]
    assert sorted(order) == evenly_spaced(5, 360)
    images = checkpoint.info.preprocessing(source.pixels[order])
    expected = gradcam(checkpoint.build(), images, target=3, layer="stages.1")
    for i, image in enumerate(document["images"]):
        (entry,) = image["models"]
        assert image["label"] == str(int(source.labels[order[i]]))
        assert (entry["name"], entry["target"]) == (SE, "3")
        assert entry["predicted"] == str(expected.predicted[i])
        assert entry["score"] == pytest.approx(expected.score[i], abs=1e-5)
        assert entry["target_score"] == pytest.approx(expected.target_score[i], abs=1e-5)
        assert entry["cam_max"] == pytest.approx(expected.cam_max[i], rel=1e-4, abs=1e-6)
    assert (document["models"][0]["layer"], document["models"][0]["method"]) == ("stages.1", "gradcam")
    with xr.open_dataset(out / "maps.nc") as arrays:
        np.testing.assert_allclose(arrays["maps"][:, 0], expected.maps, atol=1e-5)
    assert json.loads((out / "gradcam.json").read_text()) == document


def photos(folder, count=3, size=(20, 30)):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "net" / "model.safetensors"
    plain_checkpoint(path, "cifar_resnet11_se")
    return path


@pytest.mark.usefixtures("_shortened")
def test_trust_checks_are_printed_and_written(tmp_path, network, capsys):
    out, folder = tmp_path / "out", photos(tmp_path / "photos")
    assert analyze("gradcam", "--ckpt", network, "--ckpt", network, folder, "--trust", "--out", out) == 0
    text = capsys.readouterr().out
    for name in ("net", "net (2)"):
        assert f"{name}: can its maps be trusted? (3 images)" in text
    assert "Randomization: with every weight replaced by noise" in text
    assert "ROAD: with the most relevant part removed" in text
    assert "2 networks for the same class have a mean rank correlation of 1.00" in text
    kinds = (("trust", "png"), ("trust", "pdf"), ("road", "nc"), ("randomization", "nc"))
    files = {f"{kind}-net{number}.{end}" for number in ("", "-2") for kind, end in kinds}
    assert files | {"agreement.nc"} <= written(out)
    trust = json.loads((out / "gradcam.json").read_text())["trust"]
    assert trust["images"] == 3
    assert trust["agreement"]["spearman"] == pytest.approx(1)
    assert len(trust["models"][0]["randomization"]["steps"]) == 8


@pytest.mark.usefixtures("_undrawn")
def test_images_are_files_and_folders_in_the_order_given(tmp_path, network, capsys):
    folder = photos(tmp_path / "photos")
    alone = photos(tmp_path / "other", 1) / "0.png"
    assert analyze("gradcam", "--ckpt", network, alone, folder, "--json", "--out", tmp_path / "out") == 0
    document = json.loads(capsys.readouterr().out)
    assert [image["path"] for image in document["images"]] == [
        str(alone),
        *(str(folder / f"{i}.png") for i in range(3)),
    ]
    assert document["models"][0]["name"] == "net"
    assert document["models"][0]["selection"] == "4 images, named one by one"


@pytest.mark.usefixtures("_undrawn")
def test_classes_are_named_and_a_wrong_one_is_answered_with_the_list(tmp_path, network, capsys):
    folder = photos(tmp_path / "photos")
    assert analyze("gradcam", "--ckpt", network, folder, "--target", "yes", "--json", "--out", tmp_path / "out") == 0
    document = json.loads(capsys.readouterr().out)
    assert {m["target"] for image in document["images"] for m in image["models"]} == {"yes"}
    message = failure(
        capsys, analyze("gradcam", "--ckpt", network, folder, "--target", "yess", "--out", tmp_path / "b")
    )
    assert "--target: net: 'yess' is no class; did you mean 'yes'? accepted: no, yes, or 0 to 1" in message
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layer", "stage.2"), "--layer: net: no module is named 'stage.2'; did you mean 'stages.2'"),
        (("--layer", "classifier"), "--layer: net: classifier gives a tensor (1, 2), which is no feature map"),
        (("--layer", "stem", "--call", "1"), "--call: net: there is no call 1 of stem: it runs once, as call 0"),
        (("--method", "gradcm"), "--method: net: unknown method 'gradcm'; accepted: gradcam, gradcam++"),
        (("--data", "digits"), "--data: digits given beside images named one by one"),
        (("--images", "2"), "--images: 2 given beside images named one by one"),
        (("--device", "gpu"), "--device: 'gpu' is not available here"),
        (("nowhere.png",), "IMAGES: there is no file or folder nowhere.png"),
    ],
)
def test_bad_input_is_one_line_that_names_the_option(options, message, tmp_path, network, capsys):
    folder = photos(tmp_path / "photos", 1)
    code = analyze("gradcam", "--ckpt", network, folder, *options, "--out", tmp_path / "out")
    assert message in failure(capsys, code)
    assert not (tmp_path / "out").exists()


def test_a_broken_checkpoint_is_named(tmp_path, capsys):
    from dia_models import CheckpointInfo, save_checkpoint
    from dia_models.data import Preprocessing

    model = create_model("cifar_resnet11", num_classes=2)
    model.classifier.bias.data[0] = float("nan")
    preprocessing = Preprocessing(height=16, width=16, mean=(0.5,) * 3, std=(0.2,) * 3)
    info = CheckpointInfo(model=model.spec, data="folder:x", classes=("a", "b"), preprocessing=preprocessing)
    save_checkpoint(tmp_path / "bad.safetensors", model, info)
    folder = photos(tmp_path / "photos", 1)
    code = analyze("gradcam", "--ckpt", tmp_path / "bad.safetensors", folder, "--out", tmp_path / "out")
    assert (
        "--ckpt: bad: the class scores of image #0 are NaN or infinite; its weights are not finite (classifier.bias)"
        in failure(capsys, code)
    )


@pytest.mark.usefixtures("_undrawn")
def test_unreadable_images_are_left_out_or_an_error(tmp_path, network, capsys):
    folder = photos(tmp_path / "photos", 2)
    (folder / "1a.png").write_bytes(b"no image")
    run = ("gradcam", "--ckpt", network, "--ckpt", SE, folder)
    assert analyze(*run, "--json", "--out", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert [image["path"] for image in json.loads(out)["images"]] == [str(folder / f"{i}.png") for i in range(2)]
    assert err.count("1a.png: not an image in a known format") == 1
    message = failure(capsys, analyze(*run, "--strict", "--out", tmp_path / "b"))
    assert "IMAGES: " in message
    assert "1a.png: not an image in a known format" in message
    code = analyze("gradcam", "--ckpt", network, folder / "1a.png", "--out", tmp_path / "c")
    assert "none of the 1 files asked for" in (message := failure(capsys, code))
    assert "(1a.png: not an image in a known format)" in message


def test_files_are_found_in_order_and_missing_ones_are_said(tmp_path):
    photos(tmp_path / "a" / "b", 2)
    (tmp_path / "a" / "note.txt").write_text("no image")
    source = open_files([tmp_path / "a"])
    assert [source.name(i) for i in range(len(source))] == ["0.png", "1.png"]
    assert set(source.labels) == {-1}
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "empty", "has no images in it"), (tmp_path / "c", "there is no file or folder")):
        with pytest.raises(ModelInputError, match=message):
            open_files([path])
    with pytest.raises(ModelInputError, match="no image given"):
        open_files([])


def results(images=2, names=("one", "two"), target=None):
    pixels = torch.randn(images, 3, 16, 16)
    return [gradcam(create_model("cifar_resnet20_se"), pixels, model_name=name, target=target) for name in names]


def test_the_figure_has_a_row_per_image_and_one_scale():
    shown = results(target=1)
    pictures = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    figure = figures.heatmaps(shown, pictures, ["a.png", "b.png"])
    *panels, colourbar = figure.axes
    assert len(panels) == 6
    assert [ax.get_title() for ax in panels[:3]] == ["Input", "one", "two"]
    assert [panels[0].get_xlabel(), panels[3].get_xlabel()] == ["a.png", "b.png"]
    label = f"{shown[0].predicted[0]} {shown[0].score[0]:.2f}"
    assert panels[1].get_xlabel().startswith(label)
    assert colourbar.get_xlabel() == "gradcam: evidence for the class, one scale for all maps"
    assert colourbar.get_xlim() == pytest.approx((0, max(r.layer_maps.max() for r in shown)))
    np.testing.assert_array_equal(panels[0].get_images()[0].get_array(), pictures[0])
    expected = overlay(pictures[1], shown[1].layer_maps[1], shared_peak(shown))
    np.testing.assert_array_equal(panels[5].get_images()[0].get_array(), expected)


def test_what_is_marked_is_outlined_in_every_panel_whatever_its_size():
    shown, marked = results(1), np.zeros((1, 16, 16), dtype=bool)
    marked[0, 4:12, 2:8] = True
    figure = figures.heatmaps(shown, np.zeros((1, 16, 16, 3), dtype=np.uint8), outlines=marked)
    for panel in figure.axes[:3]:
        height, width = panel.get_images()[0].get_size()
        left, top, right, bottom = panel.collections[0].get_paths()[0].get_extents().extents
        assert [left + 0.5, right + 0.5] == pytest.approx([2 * width / 16, 8 * width / 16], abs=width / 32)
        assert [top + 0.5, bottom + 0.5] == pytest.approx([4 * height / 16, 12 * height / 16], abs=height / 32)


def test_only_eight_images_are_drawn_and_that_is_said():
    figure = figures.heatmaps(results(10, ("one",)), np.zeros((8, 16, 16, 3), dtype=np.uint8))
    assert len(figure.axes) == 17
    assert figure.get_suptitle() == "The first 8 of 10 images"


def test_a_map_without_evidence_leaves_the_image_in_grey_and_is_called_so():
    (shown,) = results(1, ("one",), target=0)
    nothing = type(shown)(**{**vars(shown), "layer_maps": -np.abs(shown.layer_maps)})
    picture = np.random.default_rng(0).integers(0, 255, (1, 16, 16, 3), dtype=np.uint8)
    panel = figures.heatmaps([nothing], picture).axes[1]
    assert panel.get_xlabel().endswith("no positive evidence")
    drawn = panel.get_images()[0].get_array()
    assert (drawn[..., 0] == drawn[..., 1]).all()
    assert (drawn[..., 0] == drawn[..., 2]).all()


def test_an_overlay_is_the_image_where_there_is_no_evidence_and_the_hottest_colour_at_the_peak():
    picture = np.full((300, 300, 3), 100, dtype=np.uint8)
    heat = np.zeros((2, 2), dtype=np.float32)
    heat[0, 0] = 2
    drawn = overlay(picture, heat, peak=2.0)
    assert drawn[-1, -1].tolist() == [100, 100, 100]
    hottest = 255 * np.array([0.988, 0.998, 0.645])
    np.testing.assert_allclose(drawn[0, 0], (1 - STRENGTH) * 100 + STRENGTH * hottest, atol=1)
