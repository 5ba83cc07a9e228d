"""Validation images: held out at random or by patient, never with a patient on both sides."""

import pytest
import torch
from PIL import Image

from dia_models import ModelInputError
from dia_models.data import MemoryImages, hold_out, open_data
from dia_models.data.chest_xray import in_both, patient


def images(count, groups=None, labels=None):
    labels = torch.zeros(count, dtype=torch.int64) if labels is None else torch.tensor(labels)
    pixels = torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1)
    return MemoryImages(pixels, labels, ("a", "b"), None, groups)


def numbers(part):
    return part.pixels.flatten().tolist()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PNEUMONIA/person12_virus_34.jpeg", "person12"),
        ("person123_bacteria_1.jpeg", "person123"),
        ("person1_virus_2_3.jpeg", "person1"),
        ("NORMAL/IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0115-0001-0002.jpeg", "IM-0115"),
        ("NORMAL2-IM-0381-0001.jpeg", "NORMAL2-IM-0381"),
        ("scan7.png", "scan7.png"),
    ],
)
def test_the_patient_of_a_file(name, expected):
    assert patient(name) == expected


def test_patients_of_both_parts():
    assert in_both(["person1_virus_1.jpeg", "person2_virus_1.jpeg"], ["person2_bacteria_9.jpeg"]) == {"person2"}


def test_a_random_split_is_a_partition_and_depends_on_the_seed_alone():
    kept, held = hold_out(images(50), 0.2, seed=3)
    assert len(held) == 10
    assert sorted(numbers(kept) + numbers(held)) == list(range(50))
    assert numbers(hold_out(images(50), 0.2, seed=3)[1]) == numbers(held)
    assert numbers(hold_out(images(50), 0.2, seed=4)[1]) != numbers(held)
    assert hold_out(images(50), 0.0, seed=3)[1] is None


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together_and_classes_keep_their_shares(seed):
    labels = [0] * 60 + [1] * 180
    groups = tuple(f"p{i // 3}" for i in range(240))
    kept, held = hold_out(images(240, groups, labels), 0.2, seed)
    assert not set(kept.groups) & set(held.groups)
    assert sorted(numbers(kept) + numbers(held)) == list(range(240))
    assert torch.bincount(held.labels).tolist() == [12, 36]


def test_a_group_that_is_larger_than_the_share_is_not_split():
    groups = ("big",) * 40 + tuple(f"p{i}" for i in range(10))
    for seed in range(8):
        kept, held = hold_out(images(50, groups), 0.1, seed)
        assert held is None or not set(kept.groups) & set(held.groups)


def chest_xrays(root, *classes):
    for part in ("train", "test"):
        for name in classes:
            folder = root / "chest_xray" / part / name
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("L", (8, 8), 100).save(folder / f"person1_virus_{number}.jpeg")


def test_chest_xrays_are_grouped_by_patient(tmp_path):
    chest_xrays(tmp_path, "NORMAL", "PNEUMONIA")
    loaded = open_data("chest-xray", "train", tmp_path).load(None, 1)
    assert loaded.groups == ("person1",) * 4
    assert loaded.classes == ("NORMAL", "PNEUMONIA")


def test_a_third_class_of_chest_xrays_is_refused(tmp_path):
    chest_xrays(tmp_path, "COVID", "NORMAL", "PNEUMONIA")
    with pytest.raises(ModelInputError, match="class folders COVID, NORMAL, PNEUMONIA; chest-xray has NORMAL and"):
        open_data("chest-xray", "test", tmp_path)


def test_missing_chest_xrays_say_where_they_belong(tmp_path):
    with pytest.raises(ModelInputError, match=r"put the folder chest_xray/\{train,test\}"):
        open_data("chest-xray", "train", tmp_path)
