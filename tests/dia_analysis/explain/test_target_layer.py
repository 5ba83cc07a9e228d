"""The layer that is explained: found by structure in networks of many kinds."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from dia_analysis import AnalysisInputError
from dia_analysis.explain.target_layer import TargetLayer, find_target_layer
from dia_models import create_model

pytestmark = pytest.mark.numeric


def found(model, size=32, channels=3, **options):
    return find_target_layer(model.eval(), torch.randn(1, channels, size, size), **options)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: create_model("cifar_resnet29_dia_lstm"), "stages.2.blocks.2"),
        (lambda: create_model("cifar_preresnet20_se"), "stages.2.blocks.1"),
        (lambda: torchvision.models.resnet18(), "layer4.1"),
        (lambda: torchvision.models.vgg11(), "features"),
        (lambda: torchvision.models.squeezenet1_1(), "classifier.2"),
        (lambda: torchvision.models.shufflenet_v2_x0_5(), "conv5"),
        (lambda: timm.create_model("efficientnet_lite0"), "bn2.act"),
        (lambda: timm.create_model("convnext_atto"), "stages.3.blocks.1"),
    ],
)
def test_the_last_block_is_found(build, expected):
    assert found(build(), 64).name == expected


def test_a_bare_convolution_is_taken_with_its_norm_and_activation():
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    assert found(nn.Sequential(*body, *head)) == TargetLayer("2", 0)


def test_channels_last_features_are_taken_where_they_are_turned_round():
    assert (
        found(torchvision.models.swin_transformer.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4])).name == "permute"
    )


def test_a_vision_transformer_has_no_last_feature_map():
    vit = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32)
    message = (
        r"after its last feature map, on something else \(norm gives a tensor \(1, 5, 192\), tokens\).*name a layer"
    )
    with pytest.raises(AnalysisInputError, match=message) as caught:
        found(vit)
    assert str(caught.value).endswith("such as layer='patch_embed.proj'")
    assert len(str(caught.value)) <= 300
    assert found(vit, name="patch_embed.proj") == TargetLayer("patch_embed.proj", 0)
    with pytest.raises(
        AnalysisInputError, match=r"blocks.1 gives a tensor \(1, 5, 192\), tokens, which is no"
    ) as caught:
        found(vit, name="blocks.1")
    assert str(caught.value).endswith("the network's last such is layer='patch_embed.proj'")
    assert len(str(caught.value)) <= 300


def test_one_position_is_no_map():
    with pytest.raises(AnalysisInputError, match=r"avgpool gives a tensor \(1, 512, 1, 1\), which is no feature map"):
        found(torchvision.models.resnet18(), name="avgpool")
    with pytest.raises(AnalysisInputError, match="the network has no feature map"):
        found(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.Flatten()))


def test_channels_last_features_are_refused():
    class Turn(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    model = nn.Sequential(nn.Conv2d(3, 5, 1), Turn(), nn.Flatten(), nn.Linear(5 * 64, 2))
    with pytest.raises(
        AnalysisInputError, match=r"1 gives a tensor \(1, 8, 8, 5\), channels last, which is no feature"
    ):
        found(model, 8, name="1")


def test_a_module_that_does_not_run_is_said():
    model = create_model("cifar_resnet20_se")
    model.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(AnalysisInputError, match="spare never ran: the network does not use it"):
        found(model, name="spare")


def test_a_module_known_by_two_names_can_be_named_by_either():
    model = create_model("cifar_resnet20_se")
    model.alias = model.stages[1]
    assert found(model, name="alias").name == "alias"
    assert found(model, name="stages.1").name == "stages.1"
