"""Grad-CAM: by hand, against the grad-cam package, on other libraries' networks, and what it leaves untouched."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torchvision
import xarray as xr
from matplotlib.figure import Figure
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from dia_analysis import AnalysisInputError, gradcam, method_names, stream_gradcam
from dia_analysis.explain.overlay import overlay
from dia_analysis.explain.results import side_by_side, stack_arrays, summarize
from dia_models import create_model
from tests.support.heatmaps import SQUARE, Tiny, spread, state

pytestmark = pytest.mark.numeric


def package_map(model, images, layer, targets, kind=GradCAM):
    """The package's map, as it scales it; on a copy, which it may change."""
    model = copy.deepcopy(model)
    with kind(model, [model.get_submodule(layer)]) as cam:
        return cam(images, [ClassifierOutputTarget(int(t)) for t in targets])


def test_a_map_by_hand():
    """Class 1: gradients (1, -1)/4 per position, so the map is (x + x)/4; class 0: 2x/4 - 3x/4 = -x/4."""
    for target, factor in ((0, -0.25), (1, 0.5)):
        result = gradcam(Tiny(), SQUARE, target=target)
        np.testing.assert_allclose(result.layer_maps, factor * SQUARE[0].numpy(), atol=1e-7)
        np.testing.assert_allclose(result.maps, np.maximum(factor * SQUARE[0].numpy(), 0), atol=1e-7)
    assert (result.layer, result.call, result.size) == ("conv", 0, (2, 2))
    assert result.cam_max == pytest.approx([2.0])


def test_scores_by_hand():
    """The means are (2.5, -2.5), so the logits are (-2.5, 5)."""
    result = gradcam(Tiny(), SQUARE, target="first", class_names=("first", "second"))
    chance = 1 / (1 + np.exp(-7.5))
    assert (result.predicted[0], result.target[0]) == (1, 0)
    assert result.score[0] == pytest.approx(chance)
    assert result.target_score[0] == pytest.approx(1 - chance, rel=1e-4)


def test_a_map_without_positive_evidence_is_said():
    result = gradcam(Tiny(), SQUARE, target=0)
    assert result.empty.tolist() == [True]
    assert result.cam_max.tolist() == [0.0]
    assert not result.maps.any()
    assert "1 of 1 maps are zero everywhere (#0): nothing at conv speaks for the class" in result.summary()
    assert "map's peak\n#0     network  1          0.999  0       0.001      none" in result.summary()


@pytest.mark.parametrize(("weight", "predicted"), [(1.0, 1), (-1.0, 0)])
def test_a_single_logit_is_a_head_of_two_classes(weight, predicted):
    """The logit is ±5: class 1 is sigmoid(±5), and the map for class 0 is that for class 1 with its sign changed."""
    model = Tiny([(weight, -weight)])
    one, zero = (gradcam(model, SQUARE, target=t) for t in (1, 0))
    np.testing.assert_allclose(one.layer_maps, weight * 0.5 * SQUARE[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(zero.layer_maps, -one.layer_maps, rtol=1e-5)
    assert one.predicted[0] == predicted
    assert one.target_score[0] == pytest.approx(1 / (1 + np.exp(-5 * weight)), rel=1e-4)
    assert zero.target_score[0] == pytest.approx(1 / (1 + np.exp(5 * weight)), rel=1e-4)
    assert one.score[0] == pytest.approx(1 / (1 + np.exp(-5)))
    assert gradcam(model, SQUARE, class_names=("ill",)).class_names == ("not ill", "ill")


def test_an_output_of_one_number_per_image_is_a_single_logit():
    class Squeezed(Tiny):
        def forward(self, x):
            return super().forward(x)[:, 0]

    assert gradcam(Squeezed([(1.0, -1.0)]), SQUARE).predicted[0] == 1


NETWORKS = {
    "cifar_resnet20_se": (lambda: create_model("cifar_resnet20_se"), 3, 16, "stages.2.blocks.1.output"),
    "preresnet": (lambda: create_model("cifar_preresnet20_dia_lstm"), 3, 16, "stages.2.blocks.1.output"),
    "grey": (lambda: create_model("cifar_resnet20_dia_lstm", in_channels=1), 1, 16, "stages.2.blocks.1.output"),
    "efficientnet_b0": (lambda: torchvision.models.efficientnet_b0(), 3, 64, "features.8"),
    "seresnet50": (lambda: timm.create_model("seresnet50"), 3, 64, "layer4.2"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_equal_the_packages(name):
    build, channels, size, layer = NETWORKS[name]
    model = build().double()
    spread(model)
    images = torch.randn(3, channels, size, size, dtype=torch.float64)
    result = gradcam(model, images)
    assert result.layer == layer.removesuffix(".output")
    expected = package_map(model, images, layer, result.target)
    assert np.ptp(expected, axis=(1, 2)).min() > 0.5
    np.testing.assert_allclose(stretched(result.maps), stretched(expected), atol=1e-4)  # OpenCV resizes in float32


def stretched(maps):
    """Each map from 0 to 1. The package adds 1e-7 to what it divides by, twice; here that drops out."""
    low, high = (extreme(maps.astype(np.float64), axis=(1, 2), keepdims=True) for extreme in (np.min, np.max))
    return (maps - low) / (high - low)


@pytest.mark.parametrize(("method", "kind"), [("gradcam++", GradCAMPlusPlus), ("layercam", LayerCAM)])
def test_other_methods_equal_the_packages(method, kind):
    model = create_model("cifar_resnet20_eca").double()
    spread(model)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    result = gradcam(model, images, target=1, method=method)
    expected = package_map(model, images, "stages.2.blocks.1.output", [1, 1], kind)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(stretched(result.maps), stretched(expected), atol=1e-4)  # OpenCV resizes in float32


@pytest.mark.parametrize("method", [name for name in method_names() if "rollout" not in name])
def test_every_method_gives_maps(method):
    model = create_model("cifar_resnet20_se")
    spread(model)
    result = gradcam(model, torch.randn(2, 3, 16, 16), method=method)
    assert result.layer_maps.shape == (2, 4, 4)
    assert np.ptp(result.layer_maps, axis=(1, 2)).min() > 0
    assert result.method == method


def test_an_in_place_relu_after_the_layer_does_not_reach_its_map():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    apart = copy.deepcopy(model)
    apart[1].inplace = False
    images = torch.randn(2, 1, 4, 4)
    with torch.no_grad():
        features = model[0](images)
    assert (features < 0).any()
    ours, expected = (gradcam(m, images, target=0, layer="0").layer_maps for m in (model, apart))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
    weights = ((features > 0) * model[4].weight[0].detach()[:, None, None] / 16).mean((2, 3))
    np.testing.assert_allclose(ours, torch.einsum("nk,nkhw->nhw", weights, features), atol=1e-6)


class Recursive(nn.Module):
    """One convolution applied three times, to what it gave before."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.head = nn.Linear(2, 3)

    def forward(self, x, stop=None):
        for call in range(3):
            x = self.conv(x).tanh()
            if call == stop:
                return x
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("call", [0, 1, 2])
def test_each_application_of_a_shared_module_has_a_map_of_its_own(call):
    model, images = Recursive(), torch.randn(2, 2, 5, 5)
    result = gradcam(model, images, target=1, layer="conv", call=call)
    features = model.conv(images if call == 0 else model(images, stop=call - 1)).detach().requires_grad_()
    x = features.tanh()
    for _ in range(2 - call):
        x = model.conv(x).tanh()
    (gradient,) = torch.autograd.grad(model.head(x.mean((2, 3)))[:, 1].sum(), features)
    expected = torch.einsum("nk,nkhw->nhw", gradient.mean((2, 3)), features.detach())
    np.testing.assert_allclose(result.layer_maps, expected, atol=1e-6)
    assert result.call == call


def test_the_last_application_is_explained_by_default():
    images = torch.randn(1, 2, 5, 5)
    model = Recursive()
    assert gradcam(model, images).call == 2
    with pytest.raises(AnalysisInputError, match="there is no call 3 of conv: it runs 3 times, as calls 0 to 2"):
        gradcam(model, images, layer="conv", call=3)


def disturbed():
    """A network in mixed modes, partly frozen, with gradients."""
    model = create_model("cifar_resnet20_dia_cbam")
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    model.stages[1].eval()
    model.stages[0].requires_grad_(False)
    return model


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "eigencam"])
def test_nothing_of_the_network_changes(method):
    model = disturbed()
    before = state(model)
    gradcam(model, torch.ones(2, 3, 16, 16), method=method)
    assert state(model) == before


class Fails(nn.Module):
    def forward(self, x):
        raise IndexError("planted")


def test_nothing_changes_after_an_exception_either_and_it_is_not_swallowed():
    model, images = disturbed(), torch.ones(2, 3, 16, 16)
    before = state(model)
    with pytest.raises(AnalysisInputError):
        gradcam(model, images, target=17)
    assert state(model) == before
    model.classifier.add_module("bad", Fails())
    model.classifier.forward = lambda x: model.classifier.bad(x)
    before = state(model)
    with pytest.raises(IndexError, match="planted"):
        gradcam(model, images)
    assert state(model) == before


def test_gradients_may_be_off_or_inference_on_around_it():
    model, images = create_model("cifar_resnet20_se"), torch.ones(2, 3, 16, 16)
    expected = gradcam(model, images).layer_maps
    with torch.no_grad():
        np.testing.assert_array_equal(gradcam(model, images).layer_maps, expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        np.testing.assert_array_equal(gradcam(model, images.clone()).layer_maps, expected)


def test_a_frozen_network_has_maps():
    model, images = create_model("cifar_resnet20_se"), torch.ones(2, 3, 16, 16)
    expected = gradcam(model, images).layer_maps
    np.testing.assert_array_equal(gradcam(model.requires_grad_(False), images).layer_maps, expected)


def test_a_compiled_network_is_explained_uncompiled():
    expected = gradcam(Tiny(), SQUARE).layer_maps
    np.testing.assert_array_equal(gradcam(torch.compile(Tiny()), SQUARE).layer_maps, expected)


def test_only_what_follows_the_layer_has_a_graph():
    model, seen = create_model("cifar_resnet20_se"), {}
    for name in ("stages.0", "stages.1", "stages.2.blocks.1", "classifier"):
        model.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: seen.update({name: (o[0] if isinstance(o, tuple) else o).requires_grad})
        )
    gradcam(model, torch.randn(2, 3, 16, 16))
    assert seen == {"stages.0": False, "stages.1": False, "stages.2.blocks.1": False, "classifier": True}


def test_batches_give_what_one_batch_gives():
    model, images = create_model("cifar_resnet20_se"), torch.randn(5, 3, 16, 16)
    whole = gradcam(model, images)
    parts = gradcam(model, [(images[:2], "labels"), (images[2:], "labels")])
    np.testing.assert_allclose(parts.layer_maps, whole.layer_maps, atol=1e-6)
    assert parts.image_names == ("#0", "#1", "#2", "#3", "#4")
    chosen = gradcam(model, images.split(2), target=[1, 2, 3, 4, 5])
    assert chosen.target.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(chosen.maps[3], gradcam(model, images[3:4], target=4).maps[0], atol=1e-6)


def test_one_target_for_all_fills_every_map():
    result = gradcam(Tiny(), SQUARE.repeat(4, 1, 1, 1), target=1)
    np.testing.assert_allclose(result.maps, np.repeat(0.5 * SQUARE[0].numpy(), 4, 0), atol=1e-6)


def test_streaming_keeps_nothing_and_hands_the_network_back_in_between():
    model = create_model("cifar_resnet20_se").train()
    batches = (torch.randn(2, 3, 16, 16) for _ in range(3))
    names = []
    for part in stream_gradcam(model, batches, model_name="net"):
        assert model.training
        assert not any(m._forward_hooks for m in model.modules())
        assert part.maps.shape == (2, 16, 16)
        names += part.image_names
    assert names == ["#0", "#1", "#2", "#3", "#4", "#5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target": "dgo", "class_names": ("cat", "dog")},
            "'dgo' is no class; did you mean 'dog'. accepted: cat, dog, or 0 to 1",
        ),
        ({"target": 2}, "2 is no class; accepted: 0, 1, or 0 to 1"),
        ({"target": -1}, "-1 is no class"),
        ({"target": [0, 1]}, "2 targets for 1 images; give one each"),
        ({"target": []}, "0 targets for more images"),
        ({"class_names": ("a", "b", "c")}, "3 class names for a network of 2 classes"),
        ({"layer": "cnv"}, "no module is named 'cnv'; did you mean 'conv'. Its modules: conv, head"),
        ({"layer": "head"}, r"head gives a tensor \(1, 2\), which is no feature map"),
        ({"layer": "conv", "call": 1}, "there is no call 1 of conv: it runs once, as call 0"),
        ({"method": "gradcamm"}, r"unknown method 'gradcamm'; accepted: gradcam, gradcam\+\+"),
        ({"image_names": ["a", "b"]}, "2 names for 1 images"),
    ],
)
def test_what_cannot_be_is_one_clear_error(options, message):
    with pytest.raises(AnalysisInputError, match=message):
        gradcam(Tiny(), SQUARE, **options)


def test_a_class_can_be_given_by_name_or_number_and_names_come_first():
    for target, expected in (("1", 0), (1, 1), ("0", 1), (np.int64(1), 1), (torch.tensor([1]), 1)):
        assert gradcam(Tiny(), SQUARE, target=target, class_names=("1", "0")).target.tolist() == [expected]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 4, 4), r"torch.float32 of shape \(1, 4, 4\) given"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), r"torch.uint8 of shape \(1, 1, 4, 4\) given"),
        ([], "there are no images to explain"),
        ([torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 5, 5)], r"a batch of \(1, 5, 5\) after others of \(1, 4, 4\)"),
    ],
)
def test_images_that_cannot_be_explained(images, message):
    with pytest.raises(AnalysisInputError, match=message):
        gradcam(Tiny(), images)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(bad):
    model = Tiny()
    model.head.weight.data[0, 0] = bad
    with pytest.raises(
        AnalysisInputError,
        match=r"class scores of image #0 are NaN or infinite; its weights are not finite \(head.weight\)",
    ):
        gradcam(model, SQUARE)
    with pytest.raises(AnalysisInputError, match="image #1 are NaN or infinite; its weights are finite"):
        gradcam(Tiny(), torch.cat([SQUARE, SQUARE * bad]))


def test_a_gradient_that_is_not_finite_is_said():
    class Root(Tiny):
        def forward(self, x):
            return self.head(self.conv(x).mean((2, 3)).sqrt())

    with pytest.raises(AnalysisInputError, match="the map of image #0 is not finite: the gradient at conv"):
        gradcam(Root(), 0 * SQUARE)


def test_outputs_that_are_no_class_scores_are_refused():
    with pytest.raises(AnalysisInputError, match=r"it gives a tensor \(1, 2, 2, 2\); class scores \(image, class\)"):
        gradcam(nn.Sequential(nn.Conv2d(1, 2, 1)), SQUARE)


def test_a_layer_that_the_scores_do_not_depend_on_is_said():
    class Side(Tiny):
        def forward(self, x):
            self.unused = self.conv(x)
            return self.head(x.mean((2, 3)).repeat(1, 2))

    with pytest.raises(AnalysisInputError, match="the class scores do not depend on conv"):
        gradcam(Side(), SQUARE)


def test_a_network_that_turns_gradients_off_inside_has_maps_all_the_same():
    class Quiet(Tiny):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    np.testing.assert_array_equal(gradcam(Quiet(), SQUARE).maps, gradcam(Tiny(), SQUARE).maps)


def test_scores_without_a_gradient_are_said():
    class Detached(Tiny):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(AnalysisInputError, match="do not depend on conv through anything that has a gradient"):
        gradcam(Detached(), SQUARE)


class PolicyAndValue(nn.Module):
    """Gives class scores; a value is worked out after them, from the same trunk, and set aside."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.policy = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.value = nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
        self.head, self.judge = nn.Linear(4, 3), nn.Linear(2, 1)

    def forward(self, x):
        trunk = self.trunk(x)
        scores = self.head(self.policy(trunk).mean((2, 3)))
        self.last_value = self.judge(self.value(trunk).mean((2, 3))).detach()
        return scores


class WithTwin(nn.Module):
    """A network and a slow copy of it, which runs last and without gradients."""

    def __init__(self, frozen=False):
        super().__init__()
        self.online = PolicyAndValue().requires_grad_(not frozen)
        self.twin = copy.deepcopy(self.online)

    def forward(self, x):
        scores = self.online(x)
        with torch.no_grad():
            self.aim = self.twin(x)
        return scores


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (PolicyAndValue(), "policy"),
        (WithTwin(), "online.policy"),
        (WithTwin(frozen=True), "online.policy"),
    ],
)
@pytest.mark.parametrize("target", [None, [2, 0]])
def test_the_default_layer_is_the_last_that_the_scores_depend_on(model, layer, target):
    images = torch.randn(2, 1, 6, 6)
    by_default, named = (gradcam(model, images, target=target, layer=name) for name in (None, layer))
    assert by_default.layer.startswith(layer)
    np.testing.assert_allclose(by_default.layer_maps, named.layer_maps, atol=1e-6)
    assert not any(m._forward_hooks for m in model.modules())
    in_batches = gradcam(model, images.split(1), target=target)
    np.testing.assert_allclose(in_batches.layer_maps, named.layer_maps, atol=1e-6)


def test_a_layer_that_was_named_is_not_exchanged():
    with pytest.raises(AnalysisInputError, match="the class scores do not depend on value"):
        gradcam(PolicyAndValue(), torch.randn(1, 1, 6, 6), layer="value")


def test_autocast_around_it_changes_nothing():
    model, images = create_model("cifar_resnet20_se").eval(), torch.randn(2, 3, 16, 16)
    expected = gradcam(model, images, target=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(images).dtype is torch.bfloat16  # it is on
        found = gradcam(model, images, target=1)
        np.testing.assert_array_equal(found.maps, expected.maps)
        assert torch.is_autocast_enabled("cpu")
    np.testing.assert_array_equal(found.layer_maps, expected.layer_maps)
    np.testing.assert_array_equal(found.target_score, expected.target_score)


def test_a_network_that_is_in_half_precision_inside_has_maps():
    class Inside(Tiny):
        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(x)

    result = gradcam(Inside(), SQUARE, target=1)
    assert result.layer_maps.dtype == np.float32
    np.testing.assert_allclose(result.layer_maps, 0.5 * SQUARE[0].numpy(), rtol=2**-6)


class Answers(Tiny):
    """Gives what `answer` makes of its logits."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(super().forward(x))


@pytest.mark.parametrize("answer", [lambda y: {"logits": y}, lambda y: SimpleNamespace(logits=y)])
def test_outputs_may_hold_logits(answer):
    np.testing.assert_array_equal(gradcam(Answers(answer), SQUARE).layer_maps, gradcam(Tiny(), SQUARE).layer_maps)


@pytest.mark.parametrize(
    ("answer", "given"), [(lambda y: (y, y), r"a tuple of \(1, .*"), (lambda y: {"a": y, "b": y}, r"a dict of a: .*")]
)
def test_outputs_without_logits_are_one_clear_line(answer, given):
    with pytest.raises(AnalysisInputError, match=f"it gives {given}; class scores .* or as its `logits`; wrap"):
        gradcam(Answers(answer), SQUARE)


def two_results():
    images = torch.randn(3, 3, 16, 16)
    return [
        gradcam(
            create_model(f"cifar_resnet20_{a}"),
            images,
            model_name=a,
            class_names=list("abcdefghij"),
            image_names=["x", "y", "z"],
        )
        for a in ("se", "eca")
    ]


def test_the_json_document_has_the_fields_of_its_schema():
    results = two_results()
    document = json.loads(json.dumps(side_by_side(results), allow_nan=False))
    assert document["schema"] == "dia.gradcam/1"
    assert [image["path"] for image in document["images"]] == ["x", "y", "z"]
    entry = document["images"][1]["models"][1]
    fields = {"name", "predicted", "score", "target", "target_score", "cam_max"}
    assert fields <= entry.keys()
    assert entry["name"] == "eca"
    assert entry["predicted"] == "abcdefghij"[results[1].predicted[1]]
    assert entry["cam_max"] == pytest.approx(results[1].layer_maps[1].max())
    assert document["models"][0]["layer"] == "stages.2.blocks.1"
    assert document["models"][0]["layer_size"] == [4, 4]
    with pytest.raises(AnalysisInputError, match="se and eca were given different images"):
        side_by_side([results[0], results[1].take(slice(2))])


def test_labelled_arrays_hold_the_raw_maps():
    results = two_results()
    arrays = stack_arrays(results)
    assert arrays["maps"].dims == ("image", "model", "height", "width")
    assert arrays["maps"].shape == (3, 2, 16, 16)
    np.testing.assert_allclose(arrays["maps"].sel(model="eca"), results[1].maps)
    np.testing.assert_allclose(arrays["layer_maps"].sel(model="se", image="y"), results[0].layer_maps[1])
    assert arrays["target"].sel(model="se", image="z") == results[0].class_names[results[0].target[2]]


def test_networks_with_maps_of_different_sizes_fit_together():
    small = gradcam(create_model("cifar_resnet20_se"), torch.randn(2, 3, 16, 16), model_name="small")
    large = gradcam(create_model("cifar_resnet20_se"), torch.randn(2, 3, 32, 32), model_name="large")
    arrays = stack_arrays([small, large])
    assert arrays["maps"].shape == (2, 2, 32, 32)
    assert arrays["layer_maps"].shape == (2, 2, 8, 8)
    assert np.isnan(arrays["layer_maps"].sel(model="small")[:, 4:]).all()
    np.testing.assert_allclose(arrays["layer_maps"].sel(model="small")[:, :4, :4], small.layer_maps)


def test_a_saved_result_is_complete_and_never_overwritten_unasked(tmp_path):
    result = two_results()[0]
    folder = result.save(tmp_path / "out")
    with xr.open_dataset(folder / "maps.nc") as arrays:
        np.testing.assert_allclose(arrays["maps"][:, 0], result.maps)
    assert json.loads((folder / "gradcam.json").read_text())["schema"] == "dia.gradcam/1"
    assert json.loads((folder / "manifest.json").read_text())["files"].keys() == {
        *("gradcam.json", "maps.nc", "gradcam.png", "gradcam.pdf")
    }
    with pytest.raises(AnalysisInputError, match="exists; choose another folder"):
        result.save(folder)


def test_a_result_draws_its_maps_over_the_images():
    result = two_results()[0]
    one = result.take([1])
    ax = one.plot(Figure().subplots())
    drawn = ax.get_images()[0].get_array()
    np.testing.assert_array_equal(drawn, overlay(result.pictures[1], result.layer_maps[1], float(one.cam_max[0])))
    assert ax.get_title().startswith(f"y: {result.class_names[result.target[1]]} {result.target_score[1]:.2f}")
    alone = replace(one, pictures=()).plot(Figure().subplots())
    np.testing.assert_allclose(alone.get_images()[0].get_array(), result.maps[1])
    place, beside = Figure().subplots(1, 2)
    inside = [ax.get_position() for ax in result.take([0, 2]).plot(place)]  # several panels stand in the place of one
    assert len(inside) == 2
    assert place.get_position().x0 <= inside[0].x0 < inside[1].x1 < beside.get_position().x0


def test_the_picture_under_a_map_is_the_image_from_its_darkest_to_its_brightest_value():
    image = torch.linspace(-2, 3, 64).reshape(1, 1, 8, 8)
    (picture,) = gradcam(Tiny(), image).pictures
    np.testing.assert_array_equal(picture[..., 1], np.rint(255 * np.linspace(0, 1, 64)).reshape(8, 8))
    assert len(gradcam(Tiny(), image.repeat(12, 1, 1, 1)).pictures) == 8  # of the first images only


def test_coarse_maps_and_long_tables_are_said():
    result = gradcam(Tiny(), SQUARE.repeat(25, 1, 1, 1))
    assert "the maps have 2x2 positions, too few to show where things are" in result.summary()
    assert "... and 5 more images." in summarize([result])
    assert "<pre>image" in result._repr_html_()


def test_labels_stand_beside_predictions_and_wrong_ones_are_marked():
    result = gradcam(Tiny(), SQUARE.repeat(3, 1, 1, 1), image_names=("a", "b", "c"))
    right, wrong = (result.class_names[number] for number in (result.predicted[0], 1 - result.predicted[0]))
    head, *rows = summarize([result], (right, wrong, None)).splitlines()
    assert head.split()[:4] == ["image", "label", "network", "predicted"]
    assert [row.split()[:5] for row in rows[:3]] == [
        ["a", right, "network", right, f"{result.score[0]:.3f}"],
        ["b", wrong, "network", right, "✗"],
        ["c", "?", "network", right, f"{result.score[2]:.3f}"],
    ]
    assert rows[3] == "✗ a predicted class that is not the image's label"
    assert f"network: maps of the layer {result.layer}, 2x2 positions." in rows
    other = summarize([result], ("a class of other data",) * 3)
    assert "✗" not in other
    assert "label" not in summarize([result]).splitlines()[0]


def test_the_same_call_gives_the_same_numbers():
    model, images = create_model("cifar_resnet20_dia_lstm"), torch.randn(2, 3, 16, 16)
    first, second = (gradcam(model, images) for _ in range(2))
    np.testing.assert_array_equal(first.layer_maps, second.layer_maps)
    assert first.to_dict() == second.to_dict()


@pytest.mark.parametrize("bounded", [False, True])
def test_findings_that_do_not_exclude_each_other_have_scores_of_their_own(bounded):
    class Findings(Tiny):
        def forward(self, x):
            out = super().forward(x)
            return out.sigmoid() / 2 if bounded else out - 5

    model, image = Findings(), torch.randn(2, 1, 8, 8)
    result = gradcam(model, image, target=1, scores="given" if bounded else "sigmoid")
    output = model.eval()(image).detach()
    expected = output if bounded else output.sigmoid()
    np.testing.assert_allclose(result.target_score, expected[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(result.predicted, output.argmax(1))
