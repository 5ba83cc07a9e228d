"""Self-attention maps: against maps worked out from the weights, and nothing of the network changes."""

import copy
import itertools

import numpy as np
import pytest
import scipy.stats
import timm
import torch
import torchvision
from torch import nn

from dia_analysis import AnalysisInputError, capture, find_points, measure_correlation

pytestmark = pytest.mark.numeric


def timm_vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=5, embed_dim=24).eval()


def torchvision_vit():
    model = torchvision.models.VisionTransformer(32, 16, 3, 2, 24, 32, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)  # torchvision's zeros would make all outputs equal
    return model


class Tokens(nn.Module):
    """Plain torch transformer layers, tokens first, over an image's rows."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 3, 16, batch_first=False)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.encoder(x.mean(1)[:, :, :12].transpose(0, 1)).mean(0)


class Gated(nn.Module):
    """Self-attention, and a gate of its tokens."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.layer, self.gate = nn.Linear(8, 8), nn.Sigmoid()

    def forward(self, x):
        x = x.flatten(2).mT
        x = self.attention(x, x, x)[0]
        return x * self.gate(self.layer(x.mean(1, keepdim=True)))


VITS = [timm_vit, torchvision_vit, lambda: Tokens().eval()]
POINTS = [
    [f"blocks.{i}.attn:attention" for i in range(3)],
    [f"encoder.layers.encoder_layer_{i}.self_attention:attention" for i in range(3)],
    [f"encoder.layers.{i}.self_attn:attention" for i in range(2)],
]


def by_hand(x, weight, bias, heads):
    """softmax(q k / sqrt(d)) of tokens (batch, token, channel), head by head."""
    channels = x.shape[2]
    width = channels // heads
    q, k = x @ weight[:channels].T + bias[:channels], x @ weight[channels : 2 * channels].T + bias[channels:][:channels]
    parts = [slice(h * width, (h + 1) * width) for h in range(heads)]
    scores = [q[..., part] @ k[..., part].transpose(1, 2) / width**0.5 for part in parts]
    return torch.stack([(s.exp() / s.exp().sum(-1, keepdim=True)) for s in scores], 1)


def images(count=2):
    return torch.randn(count, 3, 32, 32)


def state(model):
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    return [
        [len(getattr(m, kind)) for kind in hooks] + [m.training, vars(m).get("fused_attn")] for m in model.modules()
    ]


@pytest.mark.parametrize(("make", "points"), list(zip(VITS, POINTS, strict=True)))
def test_the_points_are_found_without_being_told(make, points):
    assert [point.name for point in find_points(make(), images())] == points


def test_timms_maps_are_those_worked_out_from_the_weights():
    model, seen = timm_vit(), {}
    attention = model.blocks[1].attn
    attention.register_forward_hook(lambda _, args, __: seen.update(x=args[0]))
    with capture(model) as records, torch.no_grad():
        model(images())
    expected = by_hand(seen["x"], attention.qkv.weight, attention.qkv.bias, 3)
    found = records["blocks.1.attn:attention", 0]
    assert found.shape == (2, 3, 5, 5)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("gradients", [False, True])
def test_multihead_attentions_maps_are_those_worked_out_from_the_weights(gradients):
    model, seen = torchvision_vit(), {}
    block = model.encoder.layers[1]
    nn.init.normal_(block.self_attention.in_proj_bias)
    block.ln_1.register_forward_hook(lambda _, __, out: seen.update(x=out))
    with capture(model) as records, torch.set_grad_enabled(gradients):
        model(images())
    attention = block.self_attention
    expected = by_hand(seen["x"], attention.in_proj_weight, attention.in_proj_bias, 2)
    found = records["encoder.layers.encoder_layer_1.self_attention:attention", 0]
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", VITS)
@pytest.mark.parametrize("gradients", [False, True])
def test_outputs_are_the_same_and_everything_is_put_back(make, gradients):
    model, x = make(), images()
    before, weights = state(model), copy.deepcopy(model.state_dict())
    with torch.set_grad_enabled(gradients):
        plain = model(x)
        with capture(model):
            captured = model(x)
        again = model(x)
    assert plain.std() > 1e-3
    torch.testing.assert_close(captured, plain, atol=1e-5, rtol=0)
    assert torch.equal(again, plain)
    assert state(model) == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_everything_is_put_back_after_an_error():
    model = timm_vit()
    before = state(model)
    with pytest.raises(RuntimeError, match="on purpose"), capture(model):
        raise RuntimeError("on purpose")
    with pytest.raises(AnalysisInputError, match="was not run"), capture(model, "blocks.*"):
        pass
    assert state(model) == before
    assert any(fused for *_, fused in before)


@pytest.mark.parametrize(
    "asked", [{}, {"need_weights": False}, {"average_attn_weights": False}, {"need_weights": True}]
)
def test_the_caller_of_multihead_attention_gets_what_it_asked_for(asked):
    class Caller(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            x = x.flatten(2).mT
            return self.attention(x, x, x, **asked)

    model, x = Caller().eval(), torch.randn(2, 8, 3)
    plain, weights = model(x)
    with capture(model) as outer, capture(model) as inner:
        captured, seen = model(x)
    torch.testing.assert_close(captured, plain)
    assert (seen is None) == (weights is None)
    if weights is not None:
        torch.testing.assert_close(seen, weights)
    for records in (outer, inner):
        assert [value.shape for value in records.values()] == [(2, 2, 3, 3)]
        if weights is not None:
            found = records["attention:attention", 0]
            assert torch.equal(found if weights.ndim == 4 else found.mean(1), weights)


def test_gates_and_self_attention_are_both_taken_and_each_by_name():
    model, x = Gated().eval(), torch.randn(2, 8, 4)
    assert [(point.name, point.kind) for point in find_points(model, x)] == [
        ("attention:attention", "self-attention"),
        ("gate", "channel"),
    ]
    with capture(model, "attention") as records:
        model(x)
    assert [value.shape for value in records.values()] == [(2, 2, 4, 4)]
    assert [stage.kind for stage in measure_correlation(model, [x]).stages] == ["self-attention", "channel"]
    with capture(model, "kind:channel") as records:
        model(x)
    assert list(records) == [("gate", 0)]
    with pytest.raises(AnalysisInputError, match="no attention of kind 'spatial'; its kinds: self-attention, channel"):
        measure_correlation(model, [x], points="kind:spatial")
    with pytest.raises(AnalysisInputError, match="'gates' is no kind of map; accepted: channel, spatial"):
        measure_correlation(model, [x], points="kind:gates")


def test_dropout_between_the_weights_and_the_product_is_not_in_the_map():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, embed_dim=24, attn_drop_rate=0.5)
    for fused in (True, False):
        model.blocks[0].attn.fused_attn = fused
        with capture(model.train()) as records:
            model(images())
        (value,) = records.values()
        torch.testing.assert_close(value.sum(-1), torch.ones(2, 3, 5))


@pytest.mark.parametrize("make", VITS)
def test_correlation_between_layers_equals_scipy(make):
    model, x = make(), images(3)
    (stage,) = measure_correlation(model, x.split(2)).stages
    with capture(model) as records, torch.no_grad():
        model(x)
    maps = [value.double().mean(1).flatten(1).numpy() for value in records.values()]  # heads have no order
    pairs = list(itertools.combinations(range(len(maps)), 2))
    r = [[scipy.stats.pearsonr(maps[a][i], maps[b][i])[0] for a, b in pairs] for i in range(3)]
    assert (stage.kind, len(stage.layers), stage.pairs) == ("self-attention", len(maps), 3 * len(pairs))
    assert stage.channels == maps[0].shape[1]
    assert stage.mean_r == pytest.approx(np.mean(r), abs=1e-5)
    np.testing.assert_allclose(stage.matrix[np.triu_indices(len(maps), 1)], np.mean(r, 0), atol=1e-5)


def test_layers_with_the_same_weights_correlate_perfectly_and_random_ones_do_not():
    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(3))
            self.layers[1].load_state_dict(self.layers[0].state_dict())

        def forward(self, x):
            return [layer(x, x, x)[0] for layer in self.layers]

    (stage,) = measure_correlation(Parallel(), [5 * torch.randn(40, 6, 16)]).stages
    assert stage.matrix[0, 1] == pytest.approx(1, abs=1e-12)
    assert abs(stage.matrix[0, 2]) < 0.15


class CrossCovariance(nn.Module):
    """XCiT's attention: a head's channels attend to one another; (batch, head, channel, channel)."""

    def __init__(self, heads):
        super().__init__()
        self.heads, self.layer = heads, nn.Conv1d(12, 12, 1)

    def forward(self, x):
        x = self.layer(x).unflatten(1, (self.heads, -1))  # (batch, head, channel, token)
        return ((x @ x.mT).softmax(-1) @ x).flatten(1, 2)


@pytest.mark.parametrize("tokens", [5, 4])
def test_maps_over_channels_are_told_by_what_is_multiplied_even_if_the_tokens_are_as_many(tokens):
    model = nn.Sequential(CrossCovariance(3), CrossCovariance(3))  # 3 heads of 4 channels
    (stage,) = measure_correlation(model, [torch.randn(2, 12, tokens)]).stages
    assert (stage.kind, stage.channels, len(stage.layers)) == ("cross-covariance", 4 * 4, 2)


def test_timms_cross_covariance_is_told_from_its_class_attention():
    model = timm.models.xcit.Xcit(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=4, cls_attn_layers=1)
    stages = measure_correlation(model, [images()]).stages
    assert [(stage.kind, stage.channels) for stage in stages] == [
        ("cross-covariance", 6 * 6),
        ("self-attention", 17),
    ]


def test_maps_of_windows_belong_to_their_images():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(2,), embed_dim=12, num_heads=(2,)
    ).eval()
    x, seen = torch.randn(3, 3, 64, 64), []
    for block in model.layers[0].blocks:
        block.attn.fused_attn = False
        block.attn.softmax.register_forward_hook(lambda _, __, out: seen.append(out))
    assert [point.shape for point in find_points(model)] == [(16, 2, 16, 16)] * 2
    with capture(model) as records, torch.no_grad():
        model(x)
    for value, whole in zip(records.values(), seen[-2:], strict=True):
        assert torch.equal(value, whole.unflatten(0, (3, 16)))
    with capture(model) as alone, torch.no_grad():
        model(x[1:2])
    for value, one in zip(records.values(), alone.values(), strict=True):
        torch.testing.assert_close(value[1:2], one)


def test_statistics_of_large_maps_are_taken_image_by_image(monkeypatch):
    from dia_analysis import PearsonBetweenLayers
    from dia_analysis.statistics import pearson

    maps = torch.randn(7, 3, 10)
    whole, parts = PearsonBetweenLayers(3), PearsonBetweenLayers(3)
    whole.update(maps)
    monkeypatch.setattr(pearson, "VALUES_AT_ONCE", 1)
    parts.update(maps)
    a, b = whole.compute(), parts.compute()
    assert a["mean_r"] == pytest.approx(b["mean_r"], abs=1e-14)
    assert (a["histogram"] == b["histogram"]).all()
    assert int(parts.images) == 7


class OfChannels(nn.Module):
    """Attention of channels to channels as in DANet, which weights those most that are least alike."""

    def forward(self, x):
        channels = x.flatten(2)
        energy = channels @ channels.mT
        energy = energy.amax(-1, keepdim=True).expand_as(energy) - energy
        return x + (energy.softmax(-1) @ channels).view_as(x)


def test_channels_that_attend_to_the_least_alike_channels_are_found():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 4, 4)
    model = OfChannels()
    with torch.no_grad(), capture(model) as records:
        model(images)
    scores = images.flatten(2) @ images.flatten(2).mT
    [found] = records.in_order()
    assert found.kind == "cross-covariance"
    torch.testing.assert_close(found.value[:, 0], (-scores).softmax(-1))
