"""Image files that are decoded while training: random parts, the same at every reading, and nothing lost."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dia_models import Checkpoint, ModelInputError
from dia_models.data.folder import image_folder
from dia_models.data.random_crop import random_part
from dia_models.data.request import Request
from dia_models.data.streaming import StreamedImages
from dia_models.runs.run import fit
from dia_models.training.config import RunConfig
from dia_models.training.files import MODEL
from dia_models.training.read_images import read_classes
from dia_models.training.recipe import load_recipe

SIZE = (24, 32)


@pytest.fixture
def streamed(tmp_path: Path) -> StreamedImages:
    """Two classes of ten images each, of several sizes, every one with a grey of its own."""
    for number in range(20):
        folder = tmp_path / ("first" if number < 10 else "second")
        folder.mkdir(exist_ok=True)
        pixels = np.full((40 + number, 60, 3), 10 * number + 5, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return StreamedImages(image_folder(tmp_path, Request("train", tmp_path, workers=3)), SIZE, 3)


def greys(streamed: StreamedImages, batches: list[list[int]], seed: int | None) -> list[list[int]]:
    """The grey of every image in every batch."""
    return [pixels[:, 0, 0, 0].tolist() for pixels, _ in streamed.decode(batches, seed)]


@pytest.mark.parametrize("seed", [None, 4])
def test_every_image_comes_once_in_the_order_asked_for(streamed, seed):
    batches = [[3, 1, 19], [0], [5, 4, 2, 18], [7], [8], [9]]
    assert greys(streamed, batches, seed) == [[10 * i + 5 for i in batch] for batch in batches]
    for (pixels, labels), batch in zip(streamed.decode(batches, seed), batches, strict=True):
        assert pixels.shape == (len(batch), *SIZE, 3)
        assert labels.tolist() == [int(i > 9) for i in batch]


def test_a_part_depends_on_the_seed_and_the_index_alone(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    for name in "abc":
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    streamed = StreamedImages(image_folder(tmp_path, Request("train", tmp_path, workers=2)), SIZE, 3)
    (together, _), *_ = streamed.decode([[0, 1, 2]], 7)
    alone = [pixels[0] for pixels, _ in streamed.decode([[2], [1], [0]], 7)]
    assert all(torch.equal(together[i], alone[2 - i]) for i in range(3))
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[0], next(streamed.decode([[0]], 8))[0][0])


def test_parts_have_the_published_areas_and_ratios_and_half_are_mirrored():
    width, height = 320, 200
    columns = np.broadcast_to(np.linspace(0, 250, width, dtype=np.float32), (height, width))
    rows = np.broadcast_to(np.linspace(0, 250, height, dtype=np.float32)[:, None], (height, width))
    across, down = (Image.fromarray(ramp.round().astype(np.uint8)) for ramp in (columns, rows))
    areas, ratios, mirrored = [], [], 0
    for seed in range(400):
        wide, high = (
            random_part(ramp, (64, 64), 1, np.random.default_rng(seed))[:, :, 0].astype(float)
            for ramp in (across, down)
        )
        step = np.median(np.diff(wide, axis=1).mean(1))
        mirrored += step < 0
        w, h = abs(step) * 64 / 250, np.median(np.diff(high, axis=0).mean(0)) * 64 / 250
        areas.append(w * h)
        ratios.append(w * width / (h * height))
    assert 0.07 < min(areas) < 0.12
    assert max(areas) > 0.7
    assert 0.71 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.4
    assert 160 < mirrored < 240


def test_an_image_too_flat_for_any_part_gives_its_middle():
    flat = np.zeros((4, 400, 3), dtype=np.uint8)
    flat[:, 197:203] = 255
    part = random_part(Image.fromarray(flat), (8, 8), 3, np.random.default_rng(0))
    assert part[:, 3:5].min() == 255


def test_unreadable_images_are_left_out_and_a_batch_of_nothing_else_has_no_label(streamed):
    for index in (2, 3):
        streamed.files.paths[index].write_bytes(b"no image")
    with pytest.warns(UserWarning, match="2 images cannot be read and are left out: first/02.png"):
        batches = list(streamed.decode([[1, 2], [2, 3], [4]], 0))
    assert [labels.tolist() for _, labels in batches] == [[0], [], [0]]
    assert [len(pixels) for pixels, _ in batches] == [1, 1, 1]
    assert set(streamed.files.unreadable) == {"first/02.png", "first/03.png"}


def test_taking_some_keeps_labels_and_classes(streamed):
    some = streamed.take(torch.tensor([12, 3]))
    assert some.labels.tolist() == [1, 0]
    assert some.classes == ("first", "second")
    assert greys(some, [[0, 1]], None) == [[125, 35]]


def test_a_network_trains_on_parts_and_again_to_the_same_weights(streamed, tmp_path_factory):
    runs = []
    for name in ("one", "two"):
        config = RunConfig(
            model="cifar_resnet11",
            data=f"folder:{streamed.files.root}",
            recipe_name="one_cycle",
            recipe=load_recipe("one_cycle", epochs=2, batch_size=6, augment="resized_crop_flip", validation=0.2),
            image_size=16,
        )
        runs.append(fit(config, tmp_path_factory.mktemp(name), torch.device("cpu")))
    first, second = (Checkpoint.read(run.directory / MODEL).weights for run in runs)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert runs[0].last.images == 4  # every fifth image of a class
    assert Checkpoint.read(runs[0].directory / MODEL).info.preprocessing.size == (16, 16)


def test_parts_of_what_is_no_file_and_of_no_size_are_refused(streamed):
    with pytest.raises(ModelInputError, match="digits has none; accepted: crop_flip"):
        read_classes("digits", 16, 1, stream=True)
    with pytest.raises(ModelInputError, match="needs the size of the parts, such as 224"):
        read_classes(f"folder:{streamed.files.root}", None, 3, stream=True)


@pytest.mark.parametrize("model", ["uvit_tiny", "retinanet_resnet50_fpn"])
def test_only_classifiers_are_streamed(model, tmp_path):
    config = RunConfig(
        model=model, data="digits", recipe_name="paper_vit", recipe=load_recipe("paper_vit", validation=0), channels=3
    )
    with pytest.raises(ModelInputError, match="augment=resized_crop_flip is for classifiers"):
        fit(config, tmp_path / "run", torch.device("cpu"))
