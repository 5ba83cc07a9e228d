"""Attention maps lie where the tokens do: against timm's own windows, weights worked out by hand, and planted maps."""

import json

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.models.swin_transformer import window_reverse
from torch import nn

from dia_analysis import AnalysisInputError, measure_attention, rollout

pytestmark = pytest.mark.numeric


def vit(depth=2):
    return timm.create_model("vit_tiny_patch16_224", img_size=(32, 48), depth=depth, embed_dim=24, num_classes=3).eval()


def images(count=2, size=(32, 48)):
    return torch.randn(count, 3, *size)


def softmax_of(model, x):
    """What leaves the softmax of each block, unfused."""
    seen = []
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
        if hasattr(module, "attn_drop"):
            module.attn_drop.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(x)
    return seen


def test_the_class_tokens_attention_lies_over_the_image():
    model, x = vit(), images()
    result = measure_attention(model, x)
    assert [layer.name for layer in result.layers] == ["blocks.0.attn:attention", "blocks.1.attn:attention"]
    for layer, weights in zip(result.layers, softmax_of(model, x), strict=True):
        torch.testing.assert_close(torch.from_numpy(layer.maps), weights, atol=1e-6, rtol=1e-4)
        for query, expected in [
            (None, weights[1, :, 0, 1:].mean(0)),
            ("class", weights[1, :, 0, 1:].mean(0)),
            ("mean", weights[1, :, :, 1:].mean((0, 1))),
            ((40, 20), weights[1, :, 1 + 1 * 3 + 2, 1:].mean(0)),
        ]:
            drawn = layer.over_image(1, (32, 48), query)
            np.testing.assert_allclose(drawn, expected.reshape(2, 3), atol=1e-6)
        np.testing.assert_allclose(
            layer.over_image(0, (32, 48), "class", [2]), weights[0, 2, 0, 1:].reshape(2, 3), atol=1e-6
        )


def test_rollout_by_hand():
    model, x = vit(), images(1)
    first, second = (w.mean(1)[0].double() for w in softmax_of(model, x))
    one = torch.eye(7, dtype=torch.float64)
    expected = (0.5 * second + 0.5 * one) @ (0.5 * first + 0.5 * one)
    result = measure_attention(model, x, rollout=True)
    np.testing.assert_allclose(rollout([layer.maps for layer in result.layers])[0], expected, atol=1e-6)
    np.testing.assert_allclose(result.pictures_of(0)[-1], expected[0, 1:].reshape(2, 3), atol=1e-6)


def test_shifted_windows_are_put_together_as_timm_does():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(2, 2), embed_dim=12, num_heads=(2, 2)
    ).eval()
    x, seen = images(1, (64, 64)), []
    result = measure_attention(model, x)
    for module in model.modules():
        if hasattr(module, "attn_drop"):
            module.fused_attn = False
            module.softmax.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        model(x)
    for layer, weights, side, shift in zip(result.layers, seen, (16, 16, 8, 8), (0, 2, 0, 2), strict=True):
        received = weights.mean((1, 2)).view(-1, 4, 4, 1)
        expected = window_reverse(received, (4, 4), side, side)[0, ..., 0].roll((shift, shift), (0, 1))
        np.testing.assert_allclose(layer.over_image(0, (64, 64)), expected, atol=1e-6)
        one = layer.over_image(0, (64, 64), (0, 0))
        assert (one > 0).sum() <= 16


def test_grid_attention_lies_on_a_grid():
    model = timm.create_model("maxvit_rmlp_pico_rw_256", img_size=64, depths=(1,), embed_dim=(32,)).eval()
    block, grid = (one for one in measure_attention(model, images(1, (64, 64))).layers if one.keys is not None)
    side = block.keys.grid[0]
    assert (block.keys.index[0].reshape(2, -1) // side == np.array([[0], [1]])).all()
    assert set(grid.keys.index[0] % (side // 2)) == {0}


class Gates(nn.Module):
    """A channel gate, a spatial gate and a gate of every number."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 4)
        self.spot, self.all = (
            nn.Conv2d(4, 1, 3, padding=1),
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)),
        )

    def forward(self, x):
        x = self.conv(x)
        x = x * self.fc(x.mean((2, 3))).sigmoid()[..., None, None]
        x = x * self.spot(x).sigmoid()
        return x * self.all(x).sigmoid()


def test_gates_over_the_image_or_beside_their_mean(tmp_path):
    result = measure_attention(Gates(), images(3, (6, 8)), image_names=("a.png", "b.png", "é c.png"))
    channel, spatial, everything = result.layers
    assert [layer.kind for layer in result.layers] == ["channel", "spatial", "map"]
    drawn = result.pictures_of(1)
    np.testing.assert_allclose(drawn[0], [channel.maps[1].ravel(), channel.maps.mean(0).ravel()], atol=1e-6)
    np.testing.assert_allclose(drawn[1], spatial.maps[1].reshape(6, 8))
    np.testing.assert_allclose(drawn[2], everything.maps[1].mean(0), atol=1e-6)
    folder = result.save(tmp_path / "maps")
    document = json.loads((folder / "attention.json").read_text())
    assert document["schema"] == "dia.attention/1"
    assert [image["path"] for image in document["images"]] == ["a.png", "b.png", "é c.png"]
    for number, image in enumerate(document["images"]):
        for layer, entry in zip(result.layers, image["layers"], strict=True):
            np.testing.assert_array_equal(np.load(folder / entry["array"]), layer.maps[number])
            assert (folder / entry["picture"]).read_bytes().startswith(b"\x89PNG")
    page = (folder / "index.html").read_text()
    assert 'type="range"' in page
    assert "pictures/001-a-layer01.png" in page


def test_only_the_asked_layers_are_kept():
    result = measure_attention(vit(3), images(), layers="blocks.1.*")
    assert [layer.name for layer in result.layers] == ["blocks.1.attn:attention"]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (vit, {"heads": [3]}, "3 given; blocks.0.attn:attention has the heads 0 to 2"),
        (vit, {"query": (48, 0)}, r"\(48, 0\) is outside the image of 48x32 pixels"),
        (lambda: torchvision.models.resnet18(), {}, "ResNet uses no attention that can be captured"),
        (Gates, {"rollout": True}, "it takes layers of one number of tokens, .* given: none"),
    ],
)
def test_what_cannot_be_shown_is_said(make, options, message):
    with pytest.raises(AnalysisInputError, match=message):
        measure_attention(make().eval(), images(), **options)


def test_no_class_token_is_said():
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=24, class_token=False, global_pool="avg"
    )
    with pytest.raises(AnalysisInputError, match="has no class token; give 'mean'"):
        measure_attention(model, images(1, (32, 32)), query="class")


def test_maps_that_are_not_finite_are_said():
    model, x = vit(1), images()
    assert "not finite" not in measure_attention(model, x).summary()
    x[1] = torch.nan
    assert measure_attention(model, x).summary().endswith("not finite (NaN or infinite) on 1 of 2 images.")
    last = measure_attention(model, x[1:]).summary().splitlines()[-1]
    assert last == (
        "The map of blocks.0.attn:attention is not finite (NaN or infinite) on 1 of 1 image: this network has diverged."
    )


class TalkingHeads(nn.Module):
    """Heads that are mixed behind the softmax, by einsum, as in CaiT."""

    def __init__(self, dim=8, heads=2):
        super().__init__()
        self.heads, self.embed, self.qkv = heads, nn.Conv2d(3, dim, 4, stride=4), nn.Linear(dim, 3 * dim)
        self.mix = nn.Parameter(torch.randn(heads, heads))

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = torch.einsum("bhij,hg->bgij", torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1), self.mix)
        return (x + torch.einsum("bhij,bhjd->bhid", weights, v).transpose(1, 2).flatten(2)).mean(1)


def test_one_image_alone_has_the_maps_that_it_has_among_others():
    model, x = TalkingHeads().eval(), images(3, (16, 16))
    (among,), (alone,) = (measure_attention(model, given).layers for given in (x, x[:1]))
    assert alone.maps.shape == (1, 2, 16, 16)
    np.testing.assert_allclose(alone.maps[0], among.maps[0], rtol=1e-5, atol=1e-6)
