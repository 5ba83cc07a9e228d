"""How images are brought to a network's size: against timm's and torchvision's own transforms, to the pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from dia_models.data import Preprocessing, open_files
from dia_models.data.framing import Framing, Scaling
from dia_models.data.masks import read_mask
from dia_models.data.selection import Selection
from dia_models.networks.libraries import TorchvisionSource
from dia_models.networks.open_network import open_network
from dia_models.networks.preprocessing import Asked, choose
from dia_models.networks.request import Record

SIZES = [(61, 40), (40, 61), (33, 33), (29, 91), (300, 20)]  # height and width
FITS = {"cover": "center", "inside": "border", "stretch": "squash"}


def photograph(height, width, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def saved(folder: Path, *sizes):
    for number, (height, width) in enumerate(sizes):
        photograph(height, width, number).save(folder / f"{number}.png")
    return sorted(folder.glob("*.png"))


def seen(paths, shown: Preprocessing):
    """What commands show a network of these files."""
    source = open_files(paths)
    return [shown(next(source.batches([i], 1, shown.framing, len(shown.mean))).pixels)[0] for i in range(len(paths))]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("high", "wide"), [(24, 24), (24, 30)])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_every_way_gives_timms_pixels(size, high, wide, fit, method):
    timm_data = pytest.importorskip("timm.data")
    how = {"crop_pct": 0.9, "crop_mode": FITS[fit], "interpolation": method, "mean": (0.5, 0.4, 0.3)}
    theirs = timm_data.create_transform((3, high, wide), is_training=False, use_prefetcher=True, **how)
    scaling = Scaling(height=int(high / 0.9), width=int(wide / 0.9), fit=fit, interpolation=method)
    ours = Preprocessing(height=high, width=wide, mean=how["mean"], std=(1, 1, 1), scaling=scaling).framing
    image = photograph(*size)
    expected = theirs(image)
    np.testing.assert_array_equal(np.asarray(ours.image(image)).transpose(2, 0, 1), expected)


@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "regnet_y_400mf"])
def test_torchvisions_networks_see_what_its_transforms_give(tmp_path, name):
    from torchvision.models import get_model_weights

    theirs = get_model_weights(name).DEFAULT.transforms()
    paths = saved(tmp_path, (320, 250), (200, 333))
    record = TorchvisionSource(name).record(torch.nn.Identity())
    shown = choose(Asked(), record, None, torch.nn.Identity()).preprocessing
    assert shown.scaling.height == theirs.resize_size[0]
    for path, own in zip(paths, seen(paths, shown), strict=True):
        pixels = F.center_crop(F.resize(Image.open(path), theirs.resize_size, theirs.interpolation), theirs.crop_size)
        framed = np.asarray(shown.framing.image(Image.open(path)))
        np.testing.assert_array_equal(framed, np.asarray(pixels))  # to the bit; float32 rounds the rest twice
        torch.testing.assert_close(own, theirs(Image.open(path)), rtol=1e-6, atol=4e-6)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "efficientvit_b0"])
def test_timms_networks_see_what_its_transforms_give(tmp_path, name):
    timm = pytest.importorskip("timm")
    network = open_network(f"timm:{name}")
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(network.model))
    paths = saved(tmp_path, (320, 250), (200, 333))
    for path, own in zip(paths, seen(paths, network.preprocessing), strict=True):
        torch.testing.assert_close(own, theirs(Image.open(path)), rtol=1e-6, atol=4e-6)


def test_another_size_keeps_the_share():
    pytest.importorskip("timm")
    small = open_network("timm:resnet18", image_size=160).preprocessing  # recorded: 224 of 235 pixels, 0.95
    assert small.scaling == Scaling(height=168, width=168, interpolation="bicubic")
    record = Record("weights", (24, 24), scaling=lambda size: Scaling(height=size[0] + 8, width=size[1] + 8))
    assert choose(Asked(image_size=(48, 48)), record, None, torch.nn.Identity()).preprocessing.scaling.height == 56
    twice = Preprocessing(height=10, width=10, mean=(0,), std=(1,), scaling=Scaling(height=12, width=12)).at(20, 20)
    assert (twice.size, twice.scaling.height) == ((20, 20), 24)


def test_a_crop_that_is_asked_for():
    asked = Asked.of(224, None, None, None, 0.875)
    assert choose(asked, Record(""), None, torch.nn.Identity()).preprocessing.scaling == Scaling(height=256, width=256)
    whole = choose(
        Asked.of(None, None, None, None, 1.0),
        TorchvisionSource("resnet18").record(torch.nn.Identity()),
        None,
        torch.nn.Identity(),
    ).preprocessing
    assert whole.scaling == Scaling(height=224, width=224)
    with pytest.raises(ValueError, match="1.5 given; accepted: the share of the sides that is seen, 0.1 to 1"):
        Asked.of(None, None, None, None, 1.5)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(90, 60), (60, 90)])
def test_a_mask_is_cut_as_its_image(tmp_path, fit, size):
    """Of a white block on black, image and mask mark the same pixels, but for those that interpolation mixes."""
    block = np.zeros(size, dtype=np.uint8)
    block[20:50, 10:45] = 255
    Image.fromarray(block).save(tmp_path / "image.png")
    Image.fromarray(block).resize((2 * size[1], 2 * size[0]), Image.Resampling.NEAREST).save(tmp_path / "mask.png")
    framing = Framing((24, 24), Scaling(height=30, width=30, fit=fit), (0,))
    mask = read_mask(tmp_path / "mask.png", tmp_path / "image.png", framing)
    image = np.asarray(framing.image(Image.fromarray(block)))
    assert mask.shape == (24, 24)
    assert mask[image == 255].all()
    assert not mask[image == 0].any()
    assert 0 < mask.sum() < mask.size


def test_a_border_is_outside_of_every_mask(tmp_path):
    Image.new("L", (40, 20), 255).save(tmp_path / "white.png")
    framing = Framing((24, 24), Scaling(height=24, width=24, fit="inside"), (128,))
    mask = read_mask(tmp_path / "white.png", tmp_path / "white.png", framing)
    assert mask.sum() == 12 * 24
    assert mask[6:18].all()
    assert np.asarray(framing.image(Image.open(tmp_path / "white.png")))[0, 0] == 128


def test_pictures_are_what_the_network_sees(tmp_path):
    paths = saved(tmp_path, (60, 40), (50, 70))
    images = Selection.spread("photos", open_files(paths), 2, batch_size=2, seed=0)
    scaling = Scaling(height=30, width=30, interpolation="bilinear")
    shown = Preprocessing(height=24, width=24, mean=(0.0,) * 3, std=(1.0,) * 3, scaling=scaling)
    (pictures,) = images.pictures(shown, 8)
    (batch,) = images.batches(images.chosen, shown)
    np.testing.assert_array_equal(pictures, batch.pixels)
    twice = shown.at(48, 48)
    assert next(images.pictures(twice, 8)).shape == (2, 48, 48, 3)
    assert twice.scaling == Scaling(height=60, width=60, interpolation="bilinear")
    gray = Image.fromarray(pictures[0]).convert("L")  # each of two conversions and roundings is off by at most 1
    np.testing.assert_allclose(images.first(1).mean_picture(shown), gray, atol=4)
