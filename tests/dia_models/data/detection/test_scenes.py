"""Scenes: COCO's layout from strangers, digits on a canvas, and batches that depend on seed and epoch alone."""

import json

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from dia_models import ModelInputError
from dia_models.data.detection.digit_scenes import INK, SIDE
from dia_models.data.detection.sets import open_scenes
from dia_models.detection.batches import SceneBatches, read_ahead
from tests.support.coco_data import annotation, coco, edit


@pytest.fixture
def folder(tmp_path):
    return coco(tmp_path / "coco")


def scenes(folder, split="train", **more):
    return open_scenes(f"coco:{folder}", split, **more)


def test_cocos_layout(folder):
    found = scenes(folder)
    assert len(found) == 6
    assert len(scenes(folder, "test")) == 4
    assert found.classes == ("background", "blue", "red")  # by the ids 3 and 7
    written = json.loads((folder / "annotations" / "instances_train2017.json").read_text())["annotations"]
    x, y, width, height = written[0]["bbox"]
    first = found.objects[0]
    assert first.boxes[0].tolist() == [x, y, x + width, y + height]
    assert first.labels.tolist() == [2, 1]
    assert first.areas[0] == width * height
    pixels = found.read(0)
    assert pixels.shape == (3, 64, 80)
    assert pixels[:, y, x].tolist() == [200, 30, 30]
    assert pixels[:, y + height - 1, x + width - 1].tolist() == [200, 30, 30]
    assert pixels[:, y + height, x].tolist() != [200, 30, 30]


def test_it_is_found_by_name(folder, monkeypatch):
    monkeypatch.setenv("DIA_DATA_DIR", str(folder.parent))
    assert open_scenes("coco", "test").names == ("001.png", "002.png", "003.png", "004.png")


def test_images_without_objects_and_crowds_are_not_trained_on(folder):
    def change(content):
        content["annotations"] = [
            annotation(1, 2, 3, [0, 0, 20, 20]),
            annotation(2, 2, 7, [30, 0, 20, 20], iscrowd=1),
            annotation(3, 3, 7, [30, 0, 20, 20], iscrowd=1, segmentation={"counts": [1], "size": [1, 1]}),
        ]

    edit(folder, change)
    found = scenes(folder)
    assert found.objects[1].crowd.tolist() == [False, True]
    kept = found.with_objects()
    assert kept.names == ("002.png",)
    assert kept.objects[0].labels.tolist() == [1]
    assert torch.equal(kept.read(0), found.read(1))


def test_boxes_that_are_none_are_left_out_and_counted(folder):
    odd = [[80, 0, 5, 5], [0, 64, 5, 5], [-9, 0, 9, 9], [3, 3, 0, 8], [3, 3, 8, -1], [0, -5, 5, 5]]
    edit(folder, lambda c: c["annotations"].extend(annotation(99 + i, 1, 3, box) for i, box in enumerate(odd)))
    edit(folder, lambda c: c["annotations"].append(annotation(200, 1, 3, [70, 60, 30, 30])))  # partly inside
    with pytest.warns(UserWarning, match="6 boxes outside their image or without area are left out"):
        found = scenes(folder)
    assert found.objects[0].boxes[2].tolist() == [70, 60, 100, 90]
    assert len(found.objects[0].labels) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("images"), "holds no COCO annotations: images: Field required"),
        (lambda c: c.update(images=[]), "images: List should have at least 1 item"),
        (lambda c: c["images"][0].update(width=0), r"images.0.width: Input should be greater than"),
        (lambda c: c["images"][0].update(width=60_000, height=60_000), "001.png has 60000x60000 pixels"),
        (lambda c: c["images"][1].update(id=1), "the image id 1 is given 2 times"),
        (lambda c: c["images"][1].update(file_name="001.png"), "the file name '001.png' is given 2 times"),
        (lambda c: c["images"][0].update(file_name="../001.png"), "'../001.png' is not inside the folder"),
        (lambda c: c["images"][0].update(file_name="/etc/passwd"), "'/etc/passwd' is not inside the folder"),
        (lambda c: c["images"][0].update(file_name="a\\..\\b"), "is not inside the folder"),
        (lambda c: c["images"][0].update(file_name="a\0b"), "is not inside the folder"),
        (lambda c: c["images"][0].update(file_name="no.png"), "lacks 1 of the annotated images, first no.png"),
        (lambda c: c["categories"][0].update(id=3), "the category id 3 is given 2 times"),
        (lambda c: c["categories"][0].update(name="blue"), "the category 'blue' is given 2 times"),
        (lambda c: c["categories"][0].update(name="background"), "a category cannot be named 'background'"),
        (lambda c: c["categories"][0].update(name="a\nb"), "a category cannot be named"),
        (lambda c: c["annotations"][3].update(image_id=77), "annotations.3: there is no image with id 77"),
        (lambda c: c["annotations"][3].update(category_id=1), "annotations.3: there is no category with id 1"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "annotations.0.bbox"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, 1e300]), "annotations.0.bbox.3"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "annotations.0.bbox.3|the file"),
        (lambda c: c["annotations"][0].update(area=-1), "annotations.0.area"),
        (lambda c: c.update(annotations={}), "annotations: Input should be a valid"),
    ],
)
def test_annotations_that_cannot_be_right_are_refused_in_one_line(folder, change, said):
    edit(folder, change)
    with pytest.raises(ModelInputError, match=said) as caught:
        scenes(folder)
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_none(folder, tmp_path, monkeypatch):
    with pytest.raises(ModelInputError, match=r"coco is not in .*: put coco/ with \{train,val\}2017/ with images"):
        open_scenes("coco", "train", tmp_path / "empty")
    with pytest.raises(ModelInputError, match="no is not a folder; coco:PATH takes one with"):
        scenes(tmp_path / "no")
    with pytest.raises(ModelInputError, match="unknown data 'digits'.*accepted: coco, coco:PATH, digit-scenes"):
        open_scenes("digits", "train")
    with pytest.raises(ModelInputError, match="unknown split 'any'"):
        scenes(folder, "any")
    path = folder / "annotations" / "instances_val2017.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ModelInputError, match="holds no COCO annotations"):
        scenes(folder, "test")
    monkeypatch.setattr("dia_models.data.detection.coco.LARGEST_FILE", 10)
    with pytest.raises(ModelInputError, match="at most 2 are read"):
        scenes(folder, "test")
    path.unlink()
    with pytest.raises(ModelInputError, match=r"instances_val2017.json is missing: put"):
        scenes(folder, "test")


def test_damaged_images_are_left_out_or_an_error(folder):
    (folder / "train2017" / "002.png").write_bytes(b"nothing")
    edit(folder, lambda c: c["images"][2].update(width=81))
    found = scenes(folder)
    read = [index for batch in read_ahead(found, [[0, 1], [2, 3]]) for index, _ in batch]
    assert read == [0, 3]
    assert found.unreadable == {
        "002.png": "not an image in a known format",
        "003.png": "it has 80x64 pixels; its boxes are for 81x64",
    }
    with pytest.raises(ModelInputError, match="002.png: not an image"):
        scenes(folder, strict=True).read(1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_for_the_stored_pixels_whatever_orientation_the_camera_noted(folder, orientation):
    path = folder / "train2017" / "001.png"
    plain, exif = scenes(folder).read(0), Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.save(path, exif=exif)
    found = scenes(folder, strict=True)
    assert torch.equal(found.read(0), plain)
    for (x1, y1, x2, y2), label in zip(found.objects[0].boxes.long().tolist(), (2, 1), strict=True):
        corners = [found.read(0)[:, y, x].tolist() for y, x in ((y1, x1), (y2 - 1, x2 - 1))]
        assert corners == [[[], [30, 30, 200], [200, 30, 30]][label]] * 2


def test_an_image_is_turned_if_only_then_it_has_the_size_that_is_annotated(folder):
    path = folder / "train2017" / "001.png"
    plain, exif = scenes(folder).read(0), Image.Exif()
    exif[0x0112] = 6  # to be seen turned to the right
    with Image.open(path) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    assert torch.equal(scenes(folder, strict=True).read(0), plain)
    edit(folder, lambda content: content["images"][0].update(width=70))
    with pytest.raises(ModelInputError, match="it has 80x64 pixels; its boxes are for 70x64"):
        scenes(folder, strict=True).read(0)


def test_images_are_in_the_order_of_their_ids(folder):
    edit(folder, lambda content: content["images"].reverse())
    found = scenes(folder)
    assert found.names == tuple(f"{number:03}.png" for number in range(1, 7))
    x1, y1, _, _ = found.objects[4].boxes.long()[0].tolist()
    assert found.read(4)[:, y1, x1].tolist() == [200, 30, 30]


def test_boxes_and_areas_are_those_of_the_file_and_trained_on_in_float32(folder):
    edit(folder, lambda content: content["annotations"][0].update(bbox=[2.1, 3.2, 20.3, 10.7], area=1024.00001))
    objects = scenes(folder).objects[0]
    assert objects.boxes[0].tolist() == [2.1, 3.2, 2.1 + 20.3, 3.2 + 10.7]
    assert objects.areas[0].item() == 1024.00001
    ((_, targets, _),) = SceneBatches(scenes(folder), 6, 0, mirror=True)
    assert {target["boxes"].dtype for target in targets} == {torch.float32}


def test_digits_are_where_their_boxes_are_and_of_their_part():
    train, test = open_scenes("digit-scenes", "train"), open_scenes("digit-scenes", "test")
    assert (len(train), len(test), train.classes) == (1000, 250, ("background", *"0123456789"))
    again = open_scenes("digit-scenes", "test")
    for index, objects in enumerate(test.objects):
        pixels = test.read(index)
        assert torch.equal(pixels, again.read(index))
        assert pixels.shape == (3, SIDE, SIDE)
        assert len(objects.labels) >= 1
        inside = torch.zeros(SIDE, SIDE, dtype=torch.int64)
        for x1, y1, x2, y2 in objects.boxes.long().tolist():
            inside[y1:y2, x1:x2] += 1
            digit = pixels[0, y1:y2, x1:x2] >= INK
            assert all(side.any() for side in (digit[0], digit[-1], digit[:, 0], digit[:, -1]))
        assert inside.max() == 1  # none is on another
        assert not pixels[0][inside == 0].any()
    labels = torch.cat([objects.labels for objects in test.objects])
    assert torch.bincount(labels, minlength=11)[1:].min() > 40
    first = test.objects[0]
    assert set(labels.tolist()) == set(range(1, 11))
    assert len(load_digits().target) == 1797
    assert first.areas[0] == (first.boxes[0, 2] - first.boxes[0, 0]) * (first.boxes[0, 3] - first.boxes[0, 1])


def test_order_and_mirroring_depend_on_the_seed_alone(folder):
    found = scenes(folder).with_objects()
    one, same, other = (list(SceneBatches(found, 4, seed, mirror=True)) for seed in (5, 5, 6))
    assert [len(images) for images, _, _ in one] == [4, 2]
    flat = [[image for images, _, _ in batches for image in images] for batches in (one, same, other)]
    assert all(torch.equal(a, b) for a, b in zip(flat[0], flat[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(flat[0], flat[2], strict=True))
    plain = {found.read(i).numpy().tobytes() for i in range(6)}
    straight = [image.numpy().tobytes() in plain for image in flat[0]]
    assert 0 < sum(straight) < 6
    for images, targets, part in one:
        assert part == 1.0
        for pixels, target in zip(images, targets, strict=True):
            for (x1, y1, x2, y2), label in zip(target["boxes"].long().tolist(), target["labels"].tolist(), strict=True):
                assert (
                    pixels[:, y1, x1].tolist()
                    == pixels[:, y2 - 1, x2 - 1].tolist()
                    == [
                        [],
                        [30, 30, 200],
                        [200, 30, 30],
                    ][label]
                )
    still = [image for images, _, _ in SceneBatches(found, 4, 5, mirror=False) for image in images]
    assert all(image.numpy().tobytes() in plain for image in still)


def test_a_batch_of_which_nothing_can_be_read_counts_for_nothing(folder):
    found = scenes(folder).with_objects()
    for path in (folder / "train2017").iterdir():
        path.write_bytes(b"")
    for images, targets, part in SceneBatches(found, 4, 5, mirror=True):
        assert (len(images), part, len(targets[0]["labels"])) == (1, 0.0, 0)
