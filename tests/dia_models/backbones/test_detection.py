"""Detectors: torchvision's weights, outputs and frozen parts; a step and a detection."""

import pytest
import torch
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from dia_analysis import capture
from dia_models import CheckpointInfo, ModelInputError, create_model, load, load_backbone, save_checkpoint
from dia_models.attention import Attention
from dia_models.data import Preprocessing

pytestmark = pytest.mark.numeric

SIZES = {"min_size": 64, "max_size": 96}
TARGET = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 50.0]]), "labels": torch.tensor([2])}
LOSSES = {
    "fasterrcnn": {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"},
    "retinanet": {"classification", "bbox_regression"},
}


def theirs(family, depth, classes):
    extra = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)} if family == "retinanet" else {}
    body = resnet_fpn_backbone(backbone_name=f"resnet{depth}", weights=None, trainable_layers=3, **extra)
    return (FasterRCNN if family == "fasterrcnn" else RetinaNet)(body, classes, **SIZES)


@pytest.mark.parametrize("family", LOSSES)
@pytest.mark.parametrize("depth", [18, 50, 101])
def test_tensors_and_what_is_trained_are_torchvisions(family, depth):
    with torch.device("meta"):
        ours, public = create_model(f"{family}_resnet{depth}_fpn"), theirs(family, depth, 91)
    described = [{n: (tuple(p.shape), p.requires_grad) for n, p in m.named_parameters()} for m in (ours, public)]
    assert described[0] == described[1]
    assert ours.state_dict().keys() == public.state_dict().keys()
    with torch.device("meta"):
        attentive = create_model(f"{family}_resnet{depth}_fpn_se")
    frozen = {n.split(".")[2] for n, p in attentive.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}


@pytest.mark.parametrize("family", LOSSES)
def test_from_scratch_nothing_is_fixed(family):
    model = create_model(f"{family}_resnet18_fpn_srm", num_classes=3, from_scratch=True, **SIZES).train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    fixed = create_model(f"{family}_resnet18_fpn_srm", num_classes=3, **SIZES).train()
    assert not any(module.training for module in fixed.modules() if isinstance(module, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("family", LOSSES)
def test_detections_are_torchvisions(family):
    public, ours = theirs(family, 50, 4).eval(), create_model(f"{family}_resnet50_fpn", num_classes=4, **SIZES).eval()
    load_backbone(ours, public.state_dict())
    images = [torch.rand(3, 60, 80), torch.rand(3, 70, 64)]
    with torch.no_grad():
        for mine, other in zip(ours(images), public(images), strict=True):
            assert mine.keys() == other.keys() == {"boxes", "labels", "scores"}
            for name in mine:
                torch.testing.assert_close(mine[name], other[name], rtol=1e-4, atol=1e-3)  # pixels
        ours.train(), public.train()
        torch.manual_seed(1)
        losses = ours(images[:1], [TARGET])
        torch.manual_seed(1)
        expected = public(images[:1], [TARGET])
    assert losses.keys() == LOSSES[family]
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "attention"), [("fasterrcnn", "dia_lstm"), ("retinanet", "dia_srm"), ("fasterrcnn", "cbam")]
)
def test_a_step_on_one_image_reaches_all_that_is_trained_and_only_that(family, attention):
    model = create_model(f"{family}_resnet50_fpn_{attention}", num_classes=3, **SIZES).train()
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, Attention):  # away from zeros, which keep other weights from having a gradient
                for parameter in module.parameters():
                    parameter += 0.02 * torch.randn_like(parameter)
            if name.endswith("bn3"):  # untrained fixed batch norms let features grow until every gate is 0 or 1
                module.weight.fill_(0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    losses = model([torch.rand(3, 64, 64)], [TARGET])
    assert losses.keys() == LOSSES[family]
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    # The heads need not all be reached: without a proposal that fits there is no box to regress.
    assert {name for name in trained if name.startswith("backbone")} <= reached <= trained
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1.0).step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed <= trained
    assert any("attention" in name for name in changed)
    model.load_state_dict(before)
    model.eval()
    with torch.no_grad():
        (detected,) = model([torch.rand(3, 64, 80)])
    assert detected["boxes"].shape == (len(detected["scores"]), 4)


def test_a_detector_is_saved_loaded_and_captured(tmp_path):
    model = create_model("fasterrcnn_resnet50_fpn_dia_lstm", num_classes=3, reduction=64, **SIZES).eval()
    preprocessing = Preprocessing(height=64, width=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    info = CheckpointInfo(model=model.spec, data="coco", classes=("", "a", "b"), preprocessing=preprocessing)
    save_checkpoint(tmp_path / "m.safetensors", model, info)
    loaded, images = load(tmp_path / "m.safetensors"), [torch.rand(3, 64, 64)]
    with torch.no_grad(), capture(loaded) as records:
        torch.testing.assert_close(loaded(images), model(images))
    assert [call for _, call in records] == [*range(3), *range(4), *range(6), *range(3)]
    assert {name for name, _ in records} == {f"backbone.body.layer{n}.attention.gate" for n in (1, 2, 3, 4)}


def test_a_classifier_trained_before_gives_the_body():
    classifier = create_model("resnet50_dia_lstm", num_classes=5, reduction=64)
    detector = create_model("fasterrcnn_resnet50_fpn_dia_lstm", reduction=64)
    load_backbone(detector.backbone.body, classifier.state_dict(), leave_out=("fc",))
    assert torch.equal(
        detector.backbone.body.layer2.attention.cells[0].input_gates[0].weight,
        classifier.layer2.attention.cells[0].input_gates[0].weight,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 1}, "1 given; a detector takes images of 3 channels"),
        ({"min_size": 32}, "min_size 32 and max_size 1333 must be in this order from 64 to 10000"),
        ({"min_size": 800, "max_size": 600}, "must be in this order"),
        ({"skip": False}, "fasterrcnn_resnet50_fpn_se has no option skip. Accepted: .*max_size, min_size"),
    ],
)
def test_impossible_detectors_are_refused(options, message):
    with torch.device("meta"), pytest.raises(ModelInputError, match=message):
        create_model("fasterrcnn_resnet50_fpn_se", **options)
