"""Attention rollout and its gradient-weighted form, as maps: against a ViT and formulas written out by hand."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from dia_analysis import AnalysisInputError, check_randomization, gradcam, gradient_rollout

pytestmark = pytest.mark.numeric
SOME = ("rollout", "gradient_rollout")


class ByHand(nn.Module):
    """A transformer of 2x3 patches and, if `pooled` is false, a class token; keeps its attention in `seen`."""

    def __init__(self, how="fused", pooled=False, depth=3, width=12, heads=3):
        super().__init__()
        self.how, self.pooled, self.heads, self.seen = how, pooled, heads, []
        self.patches, self.token = nn.Conv2d(3, width, 4, 4), nn.Parameter(torch.randn(1, 1, width))
        self.mix = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.head = nn.Linear(width, 4)

    def forward(self, images):
        x = self.patches(images).flatten(2).mT
        if not self.pooled:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for layer in self.mix:
            parts = layer(F.layer_norm(x, x.shape[-1:])).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            x = x + self.attend(*parts).transpose(1, 2).flatten(2)
        return self.head(x.mean(1) if self.pooled else x[:, 0])

    def attend(self, query, key, value):
        if self.how == "fused":
            return F.scaled_dot_product_attention(query, key, value)
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        self.seen.append(weights)
        return weights @ value


def expected(model, images, target, weighted):
    """The maps (image, row, column) by the papers' formulas."""
    model.how, model.seen = "by hand", []
    scores = model(images)[:, target].sum()
    gradients = torch.autograd.grad(scores, model.seen)
    flow = torch.eye(model.seen[0].shape[-1], dtype=torch.float64)
    for weights, gradient in zip(model.seen, gradients, strict=True):
        if weighted:
            flow = flow + (weights * gradient).double().clamp(min=0).mean(1) @ flow
        else:
            flow = (weights.double().mean(1) + torch.eye(weights.shape[-1])) / 2 @ flow
    model.how = "fused"
    return (flow.mean(1) if model.pooled else flow[:, 0, 1:]).reshape(-1, 2, 3).detach().numpy()


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("method", SOME)
def test_fused_attention_gives_the_maps_of_the_formulas(method, pooled):
    torch.manual_seed(0)
    model, images = ByHand(pooled=pooled).eval(), torch.randn(2, 3, 8, 12)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = gradcam(model, images, target=2, method=method)
    wanted = expected(model, images, 2, method == "gradient_rollout")
    assert wanted.std() > 1e-3  # there is something to see
    np.testing.assert_allclose(result.layer_maps, wanted, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (result.method, result.target.tolist()) == (method, [2, 2])


def test_only_the_weighted_form_depends_on_the_class():
    model, images = ByHand().eval(), torch.randn(1, 3, 8, 12)
    maps = {m: [gradcam(model, images, target=t, method=m).layer_maps for t in (0, 1)] for m in SOME}
    assert np.array_equal(*maps["rollout"])
    assert not np.allclose(*maps["gradient_rollout"])


def of_timm(**how):
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3, **how)


@pytest.mark.parametrize(
    "make",
    [of_timm, lambda: of_timm(global_pool="avg"), lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 8, 16)],
)
@pytest.mark.parametrize("method", SOME)
def test_vits_of_timm_and_torchvision(make, method):
    model = make()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    maps = gradcam(model, torch.randn(2, 3, 32, 32), target=1, method=method).layer_maps
    assert maps.shape == (2, 2, 2)
    assert (maps > 0).any()


def test_worked_out_by_hand():
    weights = np.array([[[[0.5, 0.5], [1.0, 0.0]]]])
    found = gradient_rollout([weights, weights], [np.ones_like(weights), np.array([[[[2.0, -2.0], [0.0, 0.0]]]])])
    assert found.tolist() == [[[3.0, 1.0], [1.0, 1.0]]]


def test_it_can_be_checked_with_random_weights():
    check_randomization(ByHand().eval(), torch.randn(2, 3, 8, 12), method="gradient_rollout", draws=1)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (torchvision.models.mobilenet_v3_small, {}, "this network has no self-attention|takes transformers"),
        (lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=32, depths=(2,), num_heads=(3,)), {},
         "attends within windows: use gradcam"),
        (ByHand, {"layer": "mix.0"}, "mix.0 given; rollout goes through all self-attention"),
    ],
)  # fmt: skip
def test_what_cannot_be(make, options, message):
    size = (8, 12) if make is ByHand else (32, 32)
    with pytest.raises(AnalysisInputError, match=message):
        gradcam(make().eval(), torch.randn(1, 3, *size), method="rollout", **options)


def test_only_rollout_says_that_its_maps_are_of_no_class():
    images = torch.randn(1, 3, 8, 12)
    meanings = {method: gradcam(ByHand(), images, method=method).meaning for method in SOME}
    assert meanings == {"rollout": "attention, whatever the class", "gradient_rollout": "evidence for the class"}
