"""COCO's average precision on cases worked out by hand."""

import contextlib
import io
import json
import sys
from math import isnan

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dia_models import ModelInputError
from dia_models.data.detection.scenes import Objects, Scenes
from dia_models.detection.average_precision import Detected, average_precision, detect, undefined_scores

pytestmark = pytest.mark.numeric

ONE = pytest.approx(1, abs=1e-15)  # COCO adds the smallest number there is to what it divides by
EVERY = (ONE, ONE, ONE)
SQUARE, OTHER = (10.0, 10.0, 30.0, 30.0), (50.0, 50.0, 90.0, 90.0)


def objects(*boxes, labels=None, crowd=None):
    corners = torch.tensor(boxes).reshape(-1, 4)
    return Objects(
        corners,
        torch.tensor(labels or [1] * len(boxes), dtype=torch.int64),
        (corners[:, 2:] - corners[:, :2]).prod(1),
        torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
    )


def found(*boxes, index=0, labels=None, scores=None):
    labels = torch.tensor(labels or [1] * len(boxes), dtype=torch.int64)
    scores = torch.tensor(scores or [0.9] * len(boxes))
    return Detected(index, {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": labels, "scores": scores})


def test_perfect_boxes():
    scores = average_precision([found(SQUARE, OTHER, labels=[1, 2])], [objects(SQUARE, OTHER, labels=[1, 2])], 4)
    assert scores.images == 1
    assert (scores.ap, scores.ap50, scores.ap75) == EVERY[:3]
    assert (scores.ap_small, scores.ap_medium) == EVERY[:2]  # 20x20 and 40x40 pixels
    assert isnan(scores.ap_large)
    assert scores.per_class_ap[:2] == EVERY[:2]
    assert isnan(scores.per_class_ap[2])  # there is no object of the third class


def test_boxes_that_overlap_by_0_82():
    # 20x20 shifted by 2 and 0: 18x20 of 22x20, which is 0.818: right at 0.5 to 0.8, seven of ten overlaps.
    scores = average_precision([found((12.0, 10.0, 32.0, 30.0))], [objects(SQUARE)], 2)
    assert scores.ap == pytest.approx(0.7)
    assert (scores.ap50, scores.ap75) == EVERY[:2]


def test_a_wrong_box_before_the_right_one_halves_the_precision():
    scores = average_precision([found(OTHER, SQUARE, scores=[0.9, 0.8])], [objects(SQUARE)], 2)
    assert scores.ap == pytest.approx(0.5)
    after = average_precision([found(OTHER, SQUARE, scores=[0.8, 0.9])], [objects(SQUARE)], 2)
    assert after.ap == ONE


def test_one_of_two_objects_is_found():
    # Precision 1 up to recall 0.5, then 0: 51 of the 101 recalls.
    scores = average_precision([found(SQUARE)], [objects(SQUARE, OTHER)], 2)
    assert scores.ap == pytest.approx(51 / 101)


def test_a_recall_of_0_6_is_reached_by_six_of_ten():
    """By falling score 6 hits, 20 misses, 4 hits: precision 1 at 61 of the 101 recalls, 10 / 30 at the other 40."""
    there = [(40.0 * i, 0.0, 40.0 * i + 20, 20.0) for i in range(10)]
    nowhere = [(40.0 * i, 100.0, 40.0 * i + 20, 120.0) for i in range(20)]
    given = [*there[:6], *nowhere, *there[6:]]
    scores = average_precision([found(*given, scores=[1 - i / 40 for i in range(30)])], [objects(*there)], 2)
    assert scores.ap == pytest.approx((61 + 40 * 10 / 30) / 101, abs=1e-12)
    assert (scores.ap50, scores.ap75) == (pytest.approx(scores.ap, abs=1e-12),) * 2


def test_recalls_and_overlaps_are_held_against_cocos_thresholds():
    """These are float64 numbers: 0.6 itself, but 0.7000000000000001. Of n objects k are found, all with precision 1."""
    recalls, overlaps = np.linspace(0, 1, 101), np.linspace(0.5, 0.95, 10)
    for n, k in ((10, 3), (10, 6), (10, 7), (20, 11), (25, 7), (50, 29)):
        there = [(10.0 * i, 0.0, 10.0 * i + 9, 9.0) for i in range(n)]
        scores = average_precision([found(*there[:k])], [objects(*there)], 2)
        assert scores.ap == pytest.approx((recalls <= k / n).mean(), abs=1e-12), (n, k)
    for percent in range(50, 100, 5):  # a box as high, with this part of the width
        scores = average_precision([found((0.0, 0.0, float(percent), 10.0))], [objects((0.0, 0.0, 100.0, 10.0))], 2)
        assert scores.ap == pytest.approx((overlaps <= percent / 100).mean(), abs=1e-12), percent


def test_an_object_at_the_edge_of_two_sizes_counts_for_both_and_beyond_it_for_one():
    for area, small in ((32.0**2, True), (32.0**2 + 1e-5, False)):  # float32 cannot tell them apart
        corners = torch.tensor([[10.0, 10.0, 42.0, 42.0]], dtype=torch.float64)
        truth = Objects(corners, torch.tensor([1]), torch.tensor([area], dtype=torch.float64), torch.tensor([False]))
        scores = average_precision([found((10.0, 10.0, 42.0, 42.0))], [truth], 2)
        assert (not isnan(scores.ap_small), scores.ap_medium) == (small, ONE)


class Published:
    """Scenes as files: COCO's own tools read, load and score them."""

    def __init__(self, folder, truth, results):
        (folder / "truth.json").write_text(json.dumps(truth))
        (folder / "results.json").write_text(json.dumps(results))
        with contextlib.redirect_stdout(io.StringIO()):
            data = COCO(str(folder / "truth.json"))
            self.evaluation = COCOeval(data, data.loadRes(str(folder / "results.json")), "bbox")
            self.evaluation.evaluate()
            self.evaluation.accumulate()
            self.evaluation.summarize()


def random_scenes(seed, images=12, classes=3):
    """Objects of all sizes, some crowds; detections near them and elsewhere, in one image more than 100 of a class."""
    random = np.random.default_rng(seed)
    truth, results, number = [], [], 0
    for image in range(1, images + 1):
        for _ in range(random.integers(0, 8)):
            number += 1
            left, top, *size = np.concatenate([random.uniform(0, 300, 2), random.uniform(4, 160, 2)]).round(2).tolist()
            category, crowd = int(random.integers(1, classes + 1)), int(random.random() < 0.15)
            area = round(size[0] * size[1] * random.uniform(0.5, 1), 4)
            box = [left, top, *size]
            truth.append({"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area,
                          "iscrowd": crowd})  # fmt: skip
            for _ in range(random.integers(0, 4)):
                moved = np.maximum(np.array(box) + random.normal(0, 0.08, 4) * np.array([*size, *size]), 1)
                label = category if random.random() < 0.8 else int(random.integers(1, classes + 1))
                results.append(detection(image, label, moved, random))
        for _ in range(150 if image == 1 else random.integers(0, 5)):
            box = np.concatenate([random.uniform(0, 300, 2), random.uniform(4, 160, 2)])
            results.append(detection(image, 1 if image == 1 else int(random.integers(1, classes + 1)), box, random))
    categories = [{"id": number, "name": str(number)} for number in range(1, classes + 1)]
    described = [{"id": i, "width": 500, "height": 500, "file_name": f"{i}.jpg"} for i in range(1, images + 1)]
    return {"info": {}, "images": described, "categories": categories, "annotations": truth}, results


def detection(image, category, box, random):
    """Of two digits, so that many scores are equal; boxes as a network gives them, in float32."""
    x, y, width, height = np.float32(box).tolist()
    corners = np.float32([x, y, x + width, y + height]).tolist()
    size = [corners[2] - corners[0], corners[3] - corners[1]]
    score = float(np.float32(round(random.random(), 2)))
    return {"image_id": image, "category_id": category, "bbox": [*corners[:2], *size], "score": score}


def as_ours(truth, results):
    def of(items, image):
        mine = [item for item in items if item["image_id"] == image]
        boxes = torch.tensor([item["bbox"] for item in mine], dtype=torch.float64).reshape(-1, 4)
        corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        return mine, corners, torch.tensor([item["category_id"] for item in mine], dtype=torch.int64)

    every, detected = [], []
    for index, image in enumerate(truth["images"]):
        mine, corners, labels = of(truth["annotations"], image["id"])
        areas = torch.tensor([item["area"] for item in mine], dtype=torch.float64)
        crowd = torch.tensor([item["iscrowd"] for item in mine], dtype=torch.bool)
        every.append(Objects(corners, labels, areas, crowd))
        mine, corners, labels = of(results, image["id"])
        scores = torch.tensor([item["score"] for item in mine], dtype=torch.float32)
        detected.append(Detected(index, {"boxes": corners.float(), "labels": labels, "scores": scores}))
    return detected, every


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_cocos_own_tools(seed, tmp_path):
    truth, results = random_scenes(seed)
    theirs = Published(tmp_path, truth, results).evaluation
    ours = average_precision(*as_ours(truth, results), 4)
    np.testing.assert_allclose(list(ours.scores.values()), theirs.stats[:6], rtol=0, atol=1e-8)
    assert 0.05 < ours.ap < 0.95
    per_class = [theirs.eval["precision"][:, :, label, 0, 2].mean() for label in range(3)]
    np.testing.assert_allclose(ours.per_class_ap, per_class, rtol=0, atol=1e-8)


def test_nothing_found_and_the_wrong_class():
    for detected in (found(), found(SQUARE, labels=[2])):
        scores = average_precision([detected], [objects(SQUARE)], 3)
        assert (scores.ap, scores.per_class_ap[0]) == (0, 0)
        assert isnan(scores.per_class_ap[1])


def test_a_crowd_is_neither_to_be_found_nor_held_against_what_is_in_it():
    crowd = objects(SQUARE, OTHER, crowd=[False, True])
    inside = (55.0, 55.0, 65.0, 65.0)
    assert average_precision([found(SQUARE)], [crowd], 2).ap == ONE
    with_crowd = average_precision([found(inside, SQUARE, scores=[0.95, 0.9])], [crowd], 2)
    assert with_crowd.ap == ONE
    assert average_precision([found(inside, SQUARE, scores=[0.95, 0.9])], [objects(SQUARE)], 2).ap < 0.9


def test_images_are_scored_with_their_own_objects():
    every = [objects(SQUARE), objects(OTHER), objects(SQUARE)]
    scores = average_precision([found(OTHER, index=1), found(SQUARE, index=2)], every, 2)  # the first was not readable
    assert (scores.images, scores.ap) == (2, ONE)


def test_no_images_and_no_numbers():
    with pytest.raises(ModelInputError, match="there is no image that can be read"):
        average_precision([], [], 2)
    nothing = undefined_scores(3, 5)
    assert nothing.images == 3
    assert all(map(isnan, nothing.scores.values()))
    assert len(nothing.per_class_ap) == 4


def test_without_pycocotools(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ModelInputError, match=r"pip install 'dia-analysis\[detection\]'"):
        average_precision([found(SQUARE)], [objects(SQUARE)], 2)


class Knowing(torch.nn.Module):
    """Finds what it is told, and remembers what it is shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, images):
        self.shown += images
        assert not self.training
        return [found(SQUARE).found for _ in images]


def test_every_image_is_shown_once_with_values_from_0_to_1():
    pixels = [torch.full((3, 8 + i, 9), i * 50, dtype=torch.uint8) for i in range(5)]
    scenes = Scenes(("background", "a"), tuple("abcde"), (objects(SQUARE),) * 5, pixels.__getitem__)
    model = Knowing()
    detected = [one for batch in detect(model, scenes, 2, torch.device("cpu")) for one in batch]
    assert [one.index for one in detected] == [0, 1, 2, 3, 4]
    for shown, given in zip(model.shown, pixels, strict=True):
        torch.testing.assert_close(shown, given / 255)
