"""Patients of the user's own: from a table, from the images' names, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from dia_models import ModelInputError
from dia_models.data import MemoryImages, open_data
from dia_models.data.groups import with_groups


@pytest.fixture
def images(tmp_path):
    for name in ("00001_000.png", "00001_001.png", "deep/00002_000.png"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "x" / name)
    (tmp_path / "x" / "labels.csv").write_text("image,label\n00001_000.png,1\n00001_001.png,0\ndeep/00002_000.png,1\n")
    return open_data(f"labels:{tmp_path / 'x' / 'labels.csv'}", "any")


def groups_of(source):
    return [source.group_of(source.name(i)) for i in range(len(source))]


@pytest.mark.parametrize(("pattern", "expected"), [(r"\d+(?=_)", "00001"), (r"(\d)_", "1"), ("^.{5}", "00001")])
def test_patients_are_found_in_names(images, pattern, expected):
    found = with_groups(images, pattern=pattern)
    assert groups_of(found)[:2] == [expected, expected] != groups_of(found)[1:]
    assert found.grouping == f"by {pattern} in the images' names"


def test_patients_stand_in_a_table(images, tmp_path):
    file = tmp_path / "patients.csv"
    file.write_text("image,patient\n00001_000.png,Ann\n00001_001,Bob\ndeep\\00002_000.png,Ann\n")
    found = with_groups(images, file)
    assert (groups_of(found), found.grouping) == (["Ann", "Bob", "Ann"], "as patients.csv says")
    assert with_groups(images) is images


@pytest.mark.parametrize(
    ("text", "pattern", "message"),
    [
        (None, "x", "3 of 3 images have no group by x in the images' names: 00001_000.png"),
        (None, "(", "'\\(' is no regular expression: missing"),
        ("00001_000.png,1\n", None, "2 of 3 images have no group as p.csv says: 00001_001.png, deep/00002_000.png"),
        ("00001_000.png,1\n00001_000.png,2\n", None, "row 2 gives 00001_000.png a second group"),
        ("00001_000.png\n", None, "row 1 has 1 cells; give a CSV file with an image and its group"),
        ("00001_000.png,1\n", "x", "'x' given beside a file of groups"),
    ],
)
def test_what_cannot_be_read(images, tmp_path, text, pattern, message):
    file = None if text is None else tmp_path / "p.csv"
    if file is not None:
        file.write_text(text)
    with pytest.raises(ModelInputError, match=message):
        with_groups(images, file, pattern)


def test_images_without_names_have_no_groups(images):
    loaded = images.load((4, 4), 1)
    assert isinstance(loaded, MemoryImages)
    with pytest.raises(ModelInputError, match="have no file names to group them by"):
        with_groups(loaded, pattern="x")
