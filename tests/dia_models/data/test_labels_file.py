"""labels:FILE.csv: labels by number, by name, in several columns; what cannot be read, line by line."""

import numpy as np
import pytest
import torch
from PIL import Image

from dia_models import ModelInputError
from dia_models.data import Outputs, open_data
from dia_models.data.labels import class_numbers, numbered


@pytest.fixture
def table(tmp_path):
    (tmp_path / "deep").mkdir()
    for number, name in enumerate(("a.png", "b.png", "deep/c.png")):
        Image.fromarray(np.full((4, 4), 40 * number, np.uint8)).save(tmp_path / name)

    def write(text):
        (tmp_path / "photos.csv").write_text(text, encoding="utf-8")
        return f"labels:{tmp_path / 'photos.csv'}"

    return write


def labels_for(data, outputs):
    source = open_data(data, "any")
    numbers = class_numbers(source, outputs, data)
    (batch,) = source.batches(range(len(source)), 8, (4, 4), 1)
    return batch, numbered(batch.labels, numbers, data).tolist()


def test_numbers_are_those_of_outputs(table):
    batch, found = labels_for(table("image,label\na.png,10\nb.png,2\ndeep\\c.png,\n"), Outputs(12))
    assert found == [10, 2, -1]
    assert batch.names == ("a.png", "b.png", "deep/c.png")
    assert batch.pixels[:, 0, 0, 0].tolist() == [0, 40, 80]


def test_names_are_those_of_classes(table):
    _, found = labels_for(table("image,label\na.png,dog\nb.png,cat\ndeep/c.png,dog\n"), Outputs(2, ("dog", "cat")))
    assert found == [0, 1, 0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(None, [[1, 0], [1, 1], [0, 0]]), (("flat", "round"), [[0, 1], [1, 1], [0, 0]])],
)
def test_several_columns_are_put_in_the_outputs_order(table, names, expected):
    data = table("image,round,flat\na.png,1,0\nb.png,1.0,1\ndeep/c.png,0,0\n")
    _, found = labels_for(data, Outputs(2, names))
    assert found == expected
    assert open_data(data, "any").take([1]).rows == ((1, 1),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no labels in it; it takes a first row of column names"),
        ("image\na.png\n", "has no labels in it"),
        ("a.png,1\nb.png,0\n", "begins with an image, a.png; it takes a first row"),
        (
            "image,label\n../a.png,1\n",
            r"line 2, names ../a.png; paths start at the file's folder or data_dir, and stay in it",
        ),
        ("image,label\n/etc/passwd,1\n", "line 2, names /etc/passwd; paths start"),
        ("image,label\nC:\\a.png,1\n", "line 2, names C:.*; paths start"),
        ("image,label\n,1\n", "line 2, names no image; paths start"),
        ("image,label\na.png,1\nd.png,1\n", "line 3, names d.png, which is no file in"),
        ("image,label\na.png,1,2\n", "line 2, has 3 cells; the first row has 2"),
        ("image,x,y\na.png,1,2\n", "line 2, has '2' under y; a finding's column holds 1, 0, -1 .uncertain. or nothing"),
        ("image,x,x\na.png,1,0\n", "its columns x, x need names of their own"),
        ("image,label\na.png,1\n./a.png,0\n", "line 3, names an image that is named above"),
    ],
)
def test_what_cannot_be_read(table, text, message):
    with pytest.raises(ModelInputError, match=message) as error:
        open_data(table(text), "any")
    assert len(str(error.value)) <= 300


CHEXPERT = """Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Mass
a.png,Female,68,Frontal,AP,1.0,,
b.png,Male,1,Frontal,,0.0,-1.0,1.0
deep/c.png,Male,1,Frontal,,,1,-1
"""


@pytest.mark.parametrize(
    ("uncertain", "expected"),
    [("leave-out", [np.nan, np.nan]), ("positive", [1, 1]), ("negative", [0, 0])],
)
def test_findings_as_chexpert_has_them(table, uncertain, expected):
    taken = "left out" if uncertain == "leave-out" else f"taken as {uncertain}"
    with pytest.warns(UserWarning, match=rf"photos.csv: 2 uncertain labels \(-1\) {taken}"):
        source = open_data(table(CHEXPERT), "any", uncertain=uncertain)
    assert source.classes == ("No Finding", "Edema", "Mass")
    np.testing.assert_equal(source.rows, [(1, 0, 0), (0, expected[0], 1), (0, 1, expected[1])])


def test_findings_as_nih_has_them(table):
    text = """Image Index,Finding Labels,Follow-up #,Patient ID,OriginalImage[Width,Height],
a.png,Mass|Edema,0,1,9,9,
b.png,No Finding,1,1,9,9,
deep/c.png,Edema,0,2,9,9,
"""
    source = open_data(table(text), "any")
    assert (source.classes, source.rows) == (("Edema", "Mass"), ((1, 1), (0, 0), (1, 0)))
    assert [source.group_of(source.name(i)) for i in range(3)] == ["1", "1", "2"]
    assert source.grouping == "the column Patient ID of photos.csv"


def test_images_lie_below_another_folder_or_the_one_that_the_table_is_in(table, tmp_path):
    below = open_data(table(f"Path,x,y\n{tmp_path.name}/a.png,1,0\n"), "any")
    assert (below.root, below.name(0)) == (tmp_path.parent, f"{tmp_path.name}/a.png")
    elsewhere = open_data(table("Path,x,y\nc.png,1,0\n"), "any", tmp_path / "deep")
    assert elsewhere.paths == (tmp_path / "deep" / "c.png",)
    assert open_data(table("x,y,IMAGE\n1,0,b.png\n"), "any").classes == ("x", "y")
    with pytest.raises(ModelInputError, match="unknown uncertain 'yes'"):
        open_data(table(CHEXPERT), "any", uncertain="yes")


def test_other_files(tmp_path):
    with pytest.raises(ModelInputError, match="cannot be read"):
        open_data(f"labels:{tmp_path / 'none.csv'}", "any")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelInputError, match="cannot be read"):
        open_data(f"labels:{tmp_path / 'bytes.csv'}", "any")


def test_it_has_no_training_part(table):
    with pytest.raises(ModelInputError, match="has no training part"):
        open_data(table("image,label\na.png,1\n"), "train")


def test_a_class_that_the_network_does_not_know_is_named(table):
    data = table("image,round,flat\na.png,1,0\n")
    with pytest.raises(ModelInputError, match="classes that the network does not know: flat"):
        class_numbers(open_data(data, "any"), Outputs(2, ("round", "square")), data)
    assert torch.equal(class_numbers(open_data(data, "any"), Outputs(2), data), torch.arange(2))
