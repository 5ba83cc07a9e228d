"""Batches in all shapes, by one rule for every analysis; losses by what labels and logits look like."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import SqueezeExcitation

from dia_analysis import (
    AnalysisInputError,
    gradcam,
    measure_ablation,
    measure_attention,
    measure_correlation,
    measure_gradients,
    measure_importance,
)
from dia_analysis.probes.batches import inputs_of, iterate_batches, labels_of
from dia_models import create_model

pytestmark = pytest.mark.numeric

IMAGES, LABELS = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6)
FORMS = {
    "a tensor": IMAGES,
    "a list": [IMAGES],
    "a pair": (IMAGES, LABELS),
    "pairs": [(IMAGES, LABELS)],
    "a dict": {"pixel_values": IMAGES, "labels": LABELS},
    "dicts": [{"image": IMAGES[:4], "label": LABELS[:4]}, {"image": IMAGES[4:], "label": LABELS[4:]}],
    "a generator": (part for part in IMAGES.split(3)),
}
ANALYSES = (measure_correlation, gradcam, measure_importance, measure_attention, measure_ablation)
LABELLED = ("a pair", "pairs", "a dict", "dicts")


@pytest.fixture(scope="module")
def model():
    return create_model("cifar_resnet20_se").eval()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_images(form):
    given = list(FORMS[form]) if form == "a generator" else FORMS[form]
    batches = list(iterate_batches(given))
    assert torch.equal(torch.cat([inputs_of(batch) for batch in batches]), IMAGES)
    labels = [labels_of(batch) for batch in batches]
    assert (torch.cat(labels).tolist() == list(range(6))) if form in LABELLED else (set(labels) == {None})


def test_two_batches_are_not_taken_for_a_pair():
    assert len(list(iterate_batches((IMAGES, IMAGES)))) == len(list(iterate_batches([IMAGES, IMAGES[:2]]))) == 2


@pytest.mark.parametrize("form", ["a tensor", "a pair", "a dict", "dicts"])
def test_every_analysis_takes_every_form(model, form):
    given = FORMS[form]
    assert measure_correlation(model, given).num_images == 6
    assert measure_correlation(model, given).mean_r == pytest.approx(
        measure_correlation(model, [IMAGES]).mean_r, abs=1e-5
    )
    maps = gradcam(model, given, target=1).layer_maps
    np.testing.assert_allclose(maps, gradcam(model, IMAGES, target=1).layer_maps, rtol=1e-3, atol=1e-5)
    shown = measure_attention(model, given).layers[0].maps
    np.testing.assert_array_equal(shown, measure_attention(model, IMAGES).layers[0].maps)
    assert measure_ablation(model, given, IMAGES, replace_by=["mean"]).networks[0].num_images == 6
    if form in LABELLED:
        assert measure_gradients(model, given).networks[0].num_images == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [{"a": IMAGES, "b": LABELS}],
            "a batch is a dict with the keys a, b; its images are looked for as pixel_values",
        ),
        ({}, "a batch is a dict with no keys"),
        ([IMAGES.numpy()], "a batch gives a ndarray as images; give a tensor"),
        ([()], "a batch gives a tuple as images"),
    ],
)
def test_what_is_no_batch_is_one_clear_line_in_every_analysis(model, given, message):
    for analyse in (*ANALYSES, measure_gradients):
        with pytest.raises(AnalysisInputError, match=message) as caught:
            analyse(model, given)
        assert len(str(caught.value)) <= 300


def test_what_holds_no_batches_is_said():
    with pytest.raises(AnalysisInputError, match="a int was given; give batches, or one batch: a tensor, a tuple"):
        iterate_batches(5)


class Head(nn.Module):
    """A convolution, whose output is a stage, and logits; gives what `answer` makes of them."""

    def __init__(self, classes, answer=lambda logits: logits):
        super().__init__()
        torch.manual_seed(0)
        self.features, self.head, self.answer = nn.Conv2d(3, 4, 3), nn.Linear(4, classes), answer
        self.double()

    def forward(self, x):
        return self.answer(self.head(self.features(x).relu().mean((2, 3))))


def gradient(model, labels):
    (stage,) = measure_gradients(model, [(IMAGES.double(), labels)], points="features").networks[0].stages
    return stage.magnitudes.mean


def by_hand(model, loss):
    features = model.features(IMAGES.double())
    logits = model.head(features.relu().mean((2, 3)))
    return torch.autograd.grad(loss(logits), features)[0].abs().mean().item()


BINARY, MANY = torch.arange(6) % 2, (torch.arange(18).reshape(6, 3) % 4 == 0).long()


@pytest.mark.parametrize("labels", [BINARY, BINARY.double(), BINARY.bool(), BINARY[:, None]])
@pytest.mark.parametrize("answer", [lambda logits: logits, lambda logits: logits[:, 0]])
def test_one_logit_has_the_binary_cross_entropy(labels, answer):
    """As cross-entropy between 0 and the logit."""
    model = Head(1, answer)
    expected = by_hand(model, lambda z: F.cross_entropy(torch.cat([0 * z, z], 1), BINARY, reduction="sum"))
    assert gradient(model, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("labels", [MANY, MANY.float()])
def test_several_classes_at_once_have_a_binary_cross_entropy_each(labels):
    model = Head(3)
    expected = by_hand(model, lambda z: -sum((F.logsigmoid(z) * MANY + F.logsigmoid(-z) * (1 - MANY)).flatten()))
    assert gradient(model, labels) == pytest.approx(expected, rel=1e-12)
    network = measure_gradients(model, [(IMAGES.double(), labels)], points="features").networks[0]
    assert "the binary cross-entropy summed over a batch; 6 images" in network.conditions


@pytest.mark.parametrize("answer", [lambda y: {"logits": y}, lambda y: SimpleNamespace(logits=y)])
def test_logits_may_be_held(answer):
    assert gradient(Head(6, answer), LABELS) == gradient(Head(6), LABELS)


@pytest.mark.parametrize(
    ("classes", "labels", "message"),
    [
        (3, torch.rand(6, 3), "labels of torch.float32 that are not 0 or 1; labels are needed"),
        (
            3,
            torch.zeros(6, 2).long(),
            r"labels of \(6, 2\) up to 0 do not fit logits of \(6, 3\); give 0 or 1 for each",
        ),
        (1, LABELS, r"labels of \(6,\) up to 5 do not fit logits of \(6, 1\)"),
        (3, BINARY.float(), "labels of torch.float32 for 3 classes; give class numbers"),
        (3, LABELS, "label 5 is beyond the network's 3 classes, counted from 0"),
        (3, torch.zeros(6, 3, 1), r"labels of \(6, 3, 1\) for 6 images; labels are needed"),
    ],
)
def test_labels_that_do_not_fit_are_one_clear_line(classes, labels, message):
    with pytest.raises(AnalysisInputError, match=message) as caught:
        gradient(Head(classes), labels)
    assert len(str(caught.value)) <= 300


def test_batches_must_have_labels_of_one_kind():
    batches = [(IMAGES.double(), BINARY), (IMAGES.double(), F.one_hot(BINARY))]
    with pytest.raises(
        AnalysisInputError, match="some batches have labels for binary cross-entropy and others for cross"
    ):
        measure_gradients(Head(2), batches, points="features")


@pytest.mark.parametrize("analyse", [*ANALYSES, lambda model, images: measure_gradients(model, [(images, LABELS)])])
def test_images_must_be_numbers_that_a_network_takes(analyse):
    body = [nn.Conv2d(3, 4, 3), SqueezeExcitation(4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6)]
    model = nn.Sequential(*body)
    with pytest.raises(AnalysisInputError, match=r"torch.uint8 (of shape .*)?given; (give )?floating-point"):
        analyse(model, IMAGES.byte())


def test_a_network_may_take_whole_numbers_itself(model):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = model

        def forward(self, x):
            return self.network(x.float() / 255)

    assert measure_correlation(Scaled(), IMAGES.byte()).num_images == 6


@pytest.mark.parametrize("answer", [lambda y: {"logits": y}, lambda y: SimpleNamespace(logits=y), lambda y: (y, None)])
def test_ablation_takes_logits_that_are_held(model, answer):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = model

        def forward(self, x):
            return answer(self.network(x))

    expected, found = (
        measure_ablation(each, IMAGES, IMAGES, replace_by=["mean"], name="a").summary() for each in (model, Holder())
    )
    assert found == expected
