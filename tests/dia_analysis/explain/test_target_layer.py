"""The layer that is explained: found by structure in networks of many kinds."""

from collections import OrderedDict

import numpy as np
import pytest
import timm
import torch
import torchvision
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from dia_analysis import AnalysisInputError, gradcam
from dia_analysis.explain.layout import MAP, Layout, find_layout
from dia_analysis.explain.target_layer import TargetLayer, find_target_layer, last_that_counts
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


def tiny_cnn():
    body = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(OrderedDict(body=nn.Sequential(*body), head=nn.Linear(4, 2)))


TOKENS = {
    "class token": (lambda: timm.create_model("test_vit", img_size=32, depth=2), "blocks.1.norm1", (2, 2), 1),
    "registers": (
        lambda: timm.create_model("test_vit", img_size=32, depth=2, reg_tokens=4),
        "blocks.1.norm1",
        (2, 2),
        5,
    ),
    "mean of all": (
        lambda: timm.create_model("test_vit", img_size=32, depth=2, global_pool="avg", class_token=False),
        "blocks.1",
        (2, 2),
        0,
    ),
    "torchvision": (
        lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 8, 16),
        "encoder.layers.encoder_layer_1.ln_1",
        (2, 2),
        1,
    ),
    "ours": (lambda: create_model("vit_small_patch16", image_size=32), None, (2, 2), 1),
    "smaller from stage to stage": (
        lambda: timm.create_model("pvt_v2_b0", depths=(1, 1), embed_dims=(8, 16), num_heads=(1, 2), mlp_ratios=(2, 2)),
        None,
        (4, 4),
        0,
    ),
}


@pytest.mark.parametrize("case", TOKENS)
def test_tokens_lie_over_the_image_and_the_last_norm_that_counts_is_taken(case):
    build, expected, grid, before = TOKENS[case]
    model = build().eval()
    for parameter in model.parameters():
        if not parameter.any():  # a head that starts at zero has no gradient
            nn.init.normal_(parameter)
    images = torch.randn(1, 3, 32, 32)
    layer = last_that_counts(model, images, lambda logits: logits[:, 0])
    assert layer.layout in (Layout("tokens", grid, before), MAP)
    assert expected in (None, layer.name)
    maps = gradcam(model, images)
    assert (maps.layer, maps.layer_maps.shape[1:]) == (layer.name, grid)
    assert maps.layer_maps.any()


def test_channels_last_features_are_explained():
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2)
    )
    assert found(swin) == TargetLayer("norm", 0, Layout("channels last"))


def test_one_position_is_no_map():
    with pytest.raises(AnalysisInputError, match=r"avgpool gives a tensor \(1, 512, 1, 1\), which is no feature map"):
        found(torchvision.models.resnet18(), name="avgpool")
    with pytest.raises(AnalysisInputError, match="the network has no feature map"):
        found(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.Flatten()))


def test_the_two_orders_of_axes_give_one_map():
    class Turn(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    model = nn.Sequential(nn.Conv2d(3, 5, 1), Turn(), nn.Flatten(), nn.Linear(5 * 64, 2))
    images = torch.randn(2, 3, 8, 8)
    first, last = (gradcam(model, images, layer=name).layer_maps for name in "01")
    assert first.any()
    np.testing.assert_allclose(first, last, atol=1e-6)


class Tokens(nn.Module):
    """The positions of a feature map as tokens after `before` others; their mean, or the first, is classified."""

    def __init__(self, before, pooled):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 2, 2), nn.LayerNorm(4), nn.Linear(4, 3)
        self.more = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
        self.extra = nn.Parameter(torch.randn(1, before, 4))
        self.pooled = pooled

    def forward(self, x):
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.extra.expand(len(x), -1, -1), tokens], 1)
        tokens = self.more(self.norm(tokens))
        return self.head(tokens.mean(1) if self.pooled else tokens[:, 0])


@pytest.mark.parametrize("before", [0, 1, 3])
def test_the_map_of_tokens_by_hand(before):
    """Each token's gradient is the same, W / number of tokens, and the map the tokens times it, row by row."""
    model = Tokens(before, pooled=True)
    images = torch.randn(2, 3, 8, 12)
    found_map = gradcam(model, images, target=1, layer="norm").layer_maps
    tokens = model.norm(model.conv(images).flatten(2).transpose(1, 2))
    weights = model.head.weight
    for layer in reversed(model.more):
        weights = weights @ layer.weight
    expected = (tokens @ weights[1]).reshape(2, 4, 6) / (24 + before)
    np.testing.assert_allclose(found_map, expected.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_tokens_that_the_score_does_not_depend_on_are_said():
    with pytest.raises(AnalysisInputError, match="the class scores do not depend on norm"):
        gradcam(Tokens(1, pooled=False), torch.randn(1, 3, 8, 8), layer="norm")


@pytest.mark.parametrize("build", [lambda: timm.create_model("test_vit", img_size=32, depth=2), tiny_cnn])
def test_a_head_that_starts_at_zero_has_maps_of_zeros(build):
    model = build().eval()
    for parameter in model.get_submodule("head").parameters():
        nn.init.zeros_(parameter)
    assert not gradcam(model, torch.randn(2, 3, 32, 32)).layer_maps.any()


def test_a_map_that_only_the_other_tokens_see_does_not_count():
    class Late(Tokens):
        """As `Tokens`, with a convolution whose output only the tokens of the image get, after the class token has
        looked at them."""

        def __init__(self):
            super().__init__(1, pooled=False)
            self.late = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            features = self.conv(x)
            tokens = features.flatten(2).transpose(1, 2)
            first, others = tokens.mean(1, keepdim=True), (features + self.late(features)).flatten(2).transpose(1, 2)
            return self.head(torch.cat([first, others], 1)[:, 0])

    result = gradcam(Late(), torch.randn(1, 3, 8, 8))
    assert result.layer == "conv"
    assert result.layer_maps.any()


@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
def test_without_a_map_before_them_tokens_have_the_images_proportions(size):
    images = torch.Size((1, 3, *size))
    rows, columns = size[0] // 8, size[1] // 8
    for before in (0, 1, 2):
        shape = torch.Size((1, rows * columns + before, 7))
        assert find_layout(shape, images, None) == Layout("tokens", (rows, columns), before)
    assert find_layout(torch.Size((2, 16, 7)), images, None) is None


def test_the_map_of_a_transformer_equals_the_packages():
    model = timm.create_model("test_vit", img_size=64, depth=3).eval().double()
    nn.init.normal_(model.head.weight)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    result = gradcam(model, images)
    assert result.layer == "blocks.2.norm1"

    def reshape(tokens):
        return tokens[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)

    with GradCAM(model, [model.blocks[2].norm1], reshape_transform=reshape) as cam:
        expected = cam(images, [ClassifierOutputTarget(int(t)) for t in result.target])
    np.testing.assert_allclose(stretched(result.maps), stretched(expected), atol=1e-4)  # OpenCV resizes in float32


def stretched(maps):
    """Each map from 0 to 1."""
    low, high = (extreme(maps.astype(np.float64), axis=(1, 2), keepdims=True) for extreme in (np.min, np.max))
    return (maps - low) / (high - low)


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
