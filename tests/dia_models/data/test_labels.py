"""The classes of data, as a network counts them."""

import pytest
import torch

from dia_models import ModelInputError
from dia_models.data import MemoryImages, Outputs
from dia_models.data.labels import class_numbers


def images(*classes):
    return MemoryImages(torch.zeros(1, 8, 8, 1, dtype=torch.uint8), torch.tensor([0]), classes)


def numbers(classes, *outputs):
    return class_numbers(images(*classes), Outputs(*outputs), "photos").tolist()


def test_names_that_are_equal_come_first():
    assert numbers(("b", "A"), 3, ("a", "A", "b")) == [2, 1]


def test_names_may_be_written_in_another_way():
    assert numbers(("Great_White-Shark", "tench"), 2, ("tench, Tinca tinca", "great white shark")) == [1, 0]


def test_a_name_that_two_outputs_have_is_not_known():
    with pytest.raises(ModelInputError, match="does not know: crane; it knows crane, bird, crane, machine"):
        numbers(("crane", "dog"), 3, ("crane, bird", "crane, machine", "dog"))


def test_imagenets_folders_are_mapped_by_imagenets_names():
    assert numbers(("n01443537", "n01440764"), 1000) == [1, 0]
    assert numbers(("n01443537",), 2, ("tench", "goldfish"), ("n01440764", "n01443537")) == [1]
    with pytest.raises(ModelInputError, match="ImageNet's class folders .n01440764., .*10 outputs are not known to be"):
        numbers(("n01440764",), 10)


def test_outputs_without_names_are_taken_in_alphabetical_order_and_that_is_said():
    with pytest.warns(UserWarning, match="taken for photos's 2 classes in alphabetical order, b, a"):
        assert numbers(("b", "a"), 2) == [1, 0]
    with pytest.raises(ModelInputError, match="photos has 2 classes, and the network 3 outputs without names"):
        numbers(("b", "a"), 3)


def test_one_output_tells_two_classes():
    assert numbers(("ill", "well"), 1, ("well", "ill")) == [1, 0]
    assert numbers(("ill",), 1, ("ill",)) == [1]
    assert Outputs(1, ("ill",)).words == ("not ill", "ill")
