"""Data sets that the user's own code gives."""

import numpy as np
import pytest
import torch

from dia_models import ModelInputError, open_data, open_network
from dia_models.classification.evaluated import evaluate_classifier
from dia_models.data import Outputs, Preprocessing, as_pictures
from dia_models.data.labels import class_numbers

CODE = """
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset


class Numbered(Dataset):
    classes = ["dark", "light"]

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index >= 4:
            raise IndexError
        return Image.new("RGB", (20, 10), (60 * index,) * 3), torch.tensor(index // 2)


def stream():
    number = 0
    while True:
        yield np.full((8, 8), number % 256, dtype=np.uint8), None
        number += 1


def arrays():
    return [(np.full(shape, 7, dtype=np.uint8), 3) for shape in ((8, 8), (8, 8, 1), (9, 8, 3), (9, 8, 4))]


def floats():
    return [(torch.full((3, 8, 8), float(n)), [0, 1, n % 2]) for n in range(3)]


def dictionaries():
    return [{"image": Image.new("L", (8, 8)), "label": np.int64(2)}]


def alone():
    return [np.zeros((3, 5, 5), dtype=np.float32)]


def loader():
    return DataLoader(Numbered())


def number():
    return 3


def nothing():
    return []


def fails():
    return {}["key"]


class Broken(Numbered):
    def __getitem__(self, index):
        raise KeyError("lost")


def doubles():
    return [np.zeros((4, 4))]


def negative():
    return [(np.zeros((4, 4), dtype=np.uint8), -2)]


def mixed():
    return [(torch.zeros(3, 4, 4), 0), (torch.zeros(3, 5, 5), 0)]
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)


def opened(name, **more):
    return open_data(f"mine.py:{name}", "any", **more)


def batch(name, size=(8, 8), channels=3, **more):
    source = opened(name, **more)
    return next(source.batches(range(len(source)), 100, size, channels))


def test_images_are_resized_and_classes_are_those_of_the_data(code):
    source = opened("Numbered")
    found = batch("Numbered")
    assert found.pixels.shape == (4, 8, 8, 3)
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 60, 120, 180]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert (source.classes, found.names) == (("dark", "light"), ("#0", "#1", "#2", "#3"))
    assert source.labels[2] == 1
    assert class_numbers(source, Outputs(2, ("light", "dark")), "x").tolist() == [1, 0]


def test_of_a_stream_the_first_images_are_taken(code):
    found = batch("stream", limit=5, channels=1)
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert found.labels.tolist() == [-1] * 5


def test_bytes_have_one_channel_three_or_four(code):
    found = batch("arrays")
    assert found.pixels.shape == (4, 8, 8, 3)
    assert found.labels.tolist() == [3] * 4
    assert class_numbers(opened("arrays"), Outputs(5), "x").tolist() == [0, 1, 2, 3, 4]


def test_float_tensors_are_taken_as_they_are(code):
    found = batch("floats", size=(4, 4))
    assert found.pixels.shape == (3, 3, 8, 8)
    assert found.labels.tolist() == [[0, 1, 0], [0, 1, 1], [0, 1, 0]]
    assert opened("floats").labels[0] == -1
    shown = Preprocessing(height=4, width=4, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert torch.equal(shown(found.pixels), found.pixels)
    with pytest.raises(ModelInputError, match="float tensors of 3 channels given; the network takes 1"):
        Preprocessing(height=4, width=4, mean=(0.5,), std=(0.5,))(found.pixels)


def test_float_tensors_are_shown_from_black_to_white():
    values = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    shown = as_pictures(values, (4, 4))
    assert shown.shape == (1, 4, 4, 3)
    assert (shown.min(), shown.max()) == (0, 255)


def test_items_may_be_dictionaries_or_images_alone(code):
    assert batch("dictionaries").labels.tolist() == [2]
    assert batch("alone").pixels.shape == (1, 3, 5, 5)


def test_some_images_can_be_taken(code):
    some = opened("Numbered").take([3, 1])
    assert [some.name(0), some.name(1)] == ["#3", "#1"]
    assert some.load((8, 8), 1).pixels[:, 0, 0, 0].tolist() == [180, 60]
    with pytest.raises(ModelInputError, match="its images are float tensors"):
        opened("floats").load((8, 8), 3)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("loader", "gives a DataLoader, which makes batches; give its data set"),
        ("number", "gives a int; give a data set of"),
        ("nothing", "gives no images"),
        ("fails", "mine.py:fails raised an error: KeyError: 'key'"),
        ("Broken", "mine.py:Broken fails at image 0: KeyError: 'lost'"),
        ("doubles", "image 0 is ndarray (4, 4) of float64; accepted: PIL images, uint8 arrays"),
        ("negative", "the label of image 0 is -2; accepted: a class number from 0, a row of 0 and 1, or None"),
        ("mixed", "the images differ in size or kind: (3, 4, 4) of torch.float32, (3, 5, 5) of torch.float32"),
        ("images", "mine.py has no images; it defines"),
    ],
)
def test_what_is_no_data_set_is_one_line(code, name, text):
    with pytest.raises(ModelInputError) as caught:
        batch(name)
    assert text in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_it_is_not_trained_on(code):
    with pytest.raises(ModelInputError, match="has no training part"):
        open_data("mine.py:Numbered", "train")


def test_a_network_is_evaluated_on_it(code):
    network = open_network("cifar_resnet11", num_classes=2, image_size=8, classes=["light", "dark"])
    found = evaluate_classifier(network, opened("Numbered"), "mine", device=torch.device("cpu"))
    assert found.predictions.labels.tolist() == [1, 1, 0, 0]
    images = np.stack([np.full((8, 8, 3), 60 * n, dtype=np.uint8) for n in range(4)])
    expected = network.model(network.preprocessing(torch.from_numpy(images)))
    assert torch.allclose(found.predictions.logits, expected, atol=1e-4)
    with pytest.raises(ModelInputError, match="no image of mine has a label"):
        evaluate_classifier(network, opened("stream", limit=2), "mine", device=torch.device("cpu"))
    with pytest.raises(ModelInputError, match="are rows of 0 and 1"):
        evaluate_classifier(network, opened("floats"), "mine", device=torch.device("cpu"))
    with pytest.raises(ModelInputError, match="has a label 3; the network has 2 classes"):
        evaluate_classifier(network, opened("arrays"), "mine", device=torch.device("cpu"))
