"""COCO's average precision on cases worked out by hand."""

import sys
from math import isnan

import pytest
import torch

from dia_models import ModelInputError
from dia_models.average_precision import Detected, average_precision, detect, undefined_scores
from dia_models.data.scenes import Objects, Scenes

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
    assert (scores.images, scores.ap, scores.ap50, scores.ap75) == (1, 1, 1, 1)
    assert (scores.ap_small, scores.ap_medium) == (1, 1)  # 20x20 and 40x40 pixels
    assert isnan(scores.ap_large)
    assert scores.per_class_ap[:2] == (1, 1)
    assert isnan(scores.per_class_ap[2])  # there is no object of the third class


def test_boxes_that_overlap_by_0_82():
    # 20x20 shifted by 2 and 0: 18x20 of 22x20, which is 0.818: right at 0.5 to 0.8, seven of ten overlaps.
    scores = average_precision([found((12.0, 10.0, 32.0, 30.0))], [objects(SQUARE)], 2)
    assert scores.ap == pytest.approx(0.7)
    assert (scores.ap50, scores.ap75) == (1, 1)


def test_a_wrong_box_before_the_right_one_halves_the_precision():
    scores = average_precision([found(OTHER, SQUARE, scores=[0.9, 0.8])], [objects(SQUARE)], 2)
    assert scores.ap == pytest.approx(0.5)
    after = average_precision([found(OTHER, SQUARE, scores=[0.8, 0.9])], [objects(SQUARE)], 2)
    assert after.ap == 1


def test_one_of_two_objects_is_found():
    # Precision 1 up to recall 0.5, then 0: 51 of the 101 recalls.
    scores = average_precision([found(SQUARE)], [objects(SQUARE, OTHER)], 2)
    assert scores.ap == pytest.approx(51 / 101)


def test_nothing_found_and_the_wrong_class():
    for detected in (found(), found(SQUARE, labels=[2])):
        scores = average_precision([detected], [objects(SQUARE)], 3)
        assert (scores.ap, scores.per_class_ap[0]) == (0, 0)
        assert isnan(scores.per_class_ap[1])


def test_a_crowd_is_neither_to_be_found_nor_held_against_what_is_in_it():
    crowd = objects(SQUARE, OTHER, crowd=[False, True])
    inside = (55.0, 55.0, 65.0, 65.0)
    assert average_precision([found(SQUARE)], [crowd], 2).ap == 1
    with_crowd = average_precision([found(inside, SQUARE, scores=[0.95, 0.9])], [crowd], 2)
    assert with_crowd.ap == 1
    assert average_precision([found(inside, SQUARE, scores=[0.95, 0.9])], [objects(SQUARE)], 2).ap < 1


def test_images_are_scored_with_their_own_objects():
    every = [objects(SQUARE), objects(OTHER), objects(SQUARE)]
    scores = average_precision([found(OTHER, index=1), found(SQUARE, index=2)], every, 2)  # the first was not readable
    assert (scores.images, scores.ap) == (2, 1)


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
