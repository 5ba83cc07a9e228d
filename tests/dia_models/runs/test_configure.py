"""Runs and evaluations from Python: what the commands do, without them."""

import numpy as np
import pytest
import torch

from dia_analysis.xray.diagnosis import choose_threshold
from dia_models import Checkpoint, ModelInputError, open_network
from dia_models.classification.evaluated import evaluate_classifier
from dia_models.classification.held_out import TrainingImages, groups_in_both
from dia_models.data import MemoryImages, Outputs, open_data
from dia_models.data.labels import class_numbers
from dia_models.runs.configure import check_same, configure

CPU = torch.device("cpu")


def test_a_configuration_has_what_suits_the_data_and_what_was_set():
    config = configure("cifar_resnet20_se", "digits", settings={"epochs": 3, "reduction": 8}, seed=4)
    assert (config.recipe_name, config.recipe.epochs, config.recipe.augment) == ("one_cycle", 3, "crop")
    assert (config.options, config.seed) == ({"reduction": 8}, 4)
    other = configure("cifar_resnet20_se", "digits", settings={"augment": "none"})
    assert (other.recipe.augment, other.recipe.padding) == ("none", 1)
    assert configure("retinanet_resnet50_fpn", "coco").recipe_name == "paper_retinanet"
    assert configure("fasterrcnn_resnet50_fpn", "coco").recipe_name == "paper_detection"
    check_same(config, model="cifar_resnet20_se", data=None)
    with pytest.raises(ModelInputError, match="the run was started with data digits, not cifar10"):
        check_same(config, data="cifar10")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"settings": {"epoch": 3}}, "unknown option 'epoch'; did you mean 'epochs'"),
        ({"settings": {"lr": 3}}, "unknown option 'lr'; did you mean 'learning_rate'"),
        ({"channels": 2}, "2 given; accepted: 1 or 3"),
        ({"recipe": "one_cycel"}, "unknown recipe .one_cycel.; did you mean .one_cycle."),
    ],
)
def test_a_wrong_configuration_is_told_before_any_data_are_read(given, message):
    with pytest.raises(ModelInputError, match=message):
        configure("cifar_resnet20_se", "nowhere", **given)


def test_a_checkpoint_is_evaluated_on_the_classes_of_the_data():
    network, source = open_network("digits-resnet56-se"), open_data("digits", "test")
    watched = []
    found = evaluate_classifier(
        network,
        source,
        "digits",
        device=CPU,
        batch_size=100,
        watch=lambda batches, count, name: watched.append((count, name)) or batches,
    )
    assert watched == [(4, "digits-resnet56-se")]
    assert found.evaluation.accuracy == pytest.approx(network.checkpoint.info.metrics["test_accuracy"])
    assert found.groups == ()
    rows = list(found.rows())
    assert len(rows) == found.to_dict()["images"] == 360
    assert sum(float(np.argmax(row[4:])) == int(row[3]) for row in rows) == round(360 * found.evaluation.accuracy)
    assert "accuracy 98.06%" in found.summary()


def images(labels, classes=("no", "yes"), **more):
    return MemoryImages(torch.zeros(len(labels), 8, 8, 1, dtype=torch.uint8), torch.tensor(labels), classes, **more)


def test_classes_are_matched_by_name():
    assert class_numbers(images([0, 1]), Outputs(3, ("yes", "maybe", "no")), "x").tolist() == [2, 0]
    with pytest.raises(ModelInputError, match="x has classes that the network does not know: no; it knows yes"):
        class_numbers(images([0]), Outputs(2, ("yes", "maybe")), "x")
    with pytest.raises(ModelInputError, match="x has no classes"):
        class_numbers(images([-1], ()), Outputs(2), "x")


def test_groups_in_both_parts_by_the_names_of_images_in_memory():
    one = images([0, 1], names=("a", "b"), groups=("p", "q"))
    other = images([0, 1], names=("a", "b"), groups=("q", "r"))
    assert (one.group_of("a"), dict(one.unreadable), one.grouping) == ("p", {}, None)
    assert images([0]).group_of is None
    assert groups_in_both(images([0]), other) is None
    assert groups_in_both(one, None) is None
    assert groups_in_both(one, images([0], names=("b",), groups=("q",))) == {"q"}


def test_training_images_are_opened_by_name_and_missing_ones_are_none():
    checkpoint = Checkpoint.read("digits-resnet56-se")
    training = TrainingImages(lambda name: open_data(name, "train"))
    assert len(training.of(checkpoint)) == 1437

    def missing(name):
        raise ModelInputError("data", "not there")

    assert TrainingImages(missing).of(checkpoint) is None
    assert TrainingImages(missing).validation_images(checkpoint) is None
    assert TrainingImages(lambda _: images([0, 1])).of(checkpoint) is None


def test_a_threshold_is_chosen_on_validation_images_or_it_says_why_not():
    labels, scores = np.array([False, False, True, True]), np.array([0.1, 0.2, 0.3, 0.4])
    found = choose_threshold(labels, scores, ["a", "a", "b", "c"])
    assert found.value == pytest.approx(0.25)
    assert "4 validation images of 3 patients" in found.source
    assert choose_threshold(labels, scores).source.count("patients") == 0
    one_class = choose_threshold(np.array([True, True]), scores[:2])
    assert (one_class.value, "all of one class" in one_class.source) == (0.5, True)
    broken = choose_threshold(labels, np.array([0.1, np.nan, 0.2, 0.3]))
    assert (broken.value, "are not finite" in broken.source) == (0.5, True)
