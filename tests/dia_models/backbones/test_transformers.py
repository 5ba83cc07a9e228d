"""Vision transformers and U-ViT: published counts and weights, and attention between the layer norm and the MLP."""

import math
from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision

from dia_analysis import capture
from dia_models import (
    CheckpointInfo,
    ModelInputError,
    create_model,
    factory,
    list_models,
    load,
    load_backbone,
    save_checkpoint,
)
from dia_models.backbones import uvit, vit
from dia_models.data import Preprocessing
from tests.support.plain import dia_lstm, linear, se

pytestmark = pytest.mark.numeric

SMALL = uvit.UViTSize(64, 8, 2)
UNPLACED = ("cbam", "sge", "dia_cbam", "dia_sge")
COUNTS = {  # 1000 classes, images of 224x224
    "vit_small_patch16": 22_050_664,  # timm's
    "vit_base_patch16": 86_567_656,  # torchvision's
    "uvit_small": 44_255_328,
    "uvit_small_dia_lstm": 44_255_328 + 659_712,
    "uvit_tiny": 3 * (12 * 128**2 + 10 * 128) + 2 * 128**2 + 128 + 17 * 128 + 13 * 128 + 2 * 128 + 129 * 12 + 84,
    "vit_base_patch16_dia_lstm": 86_567_656 + 10 * 768**2 // 4 + 2 * 768 // 4 + 8 * 768,
    "vit_small_patch16_se": 22_050_664 + 12 * (2 * 384**2 // 16 + 384 + 384 // 16),
    "vit_small_patch16_dia_se": 22_050_664 + (2 * 384**2 // 16 + 384 + 384 // 16),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_the_published_ones(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=None if name.startswith("uvit") else 1000)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


@pytest.fixture
def small(monkeypatch):
    """The same networks with fewer layers, and a narrower U-ViT."""
    monkeypatch.setattr(vit, "LAYERS", 3)
    narrow = [
        replace(b, build=partial(uvit.UViT, size=SMALL)) if b.pattern == "uvit_small" else b for b in factory.BACKBONES
    ]
    monkeypatch.setattr(factory, "BACKBONES", tuple(narrow))


def empty(name, **options):
    """A network that will be given all its weights."""
    with torch.device("meta"):
        return create_model(name, **options)


def test_torchvisions_weights_give_torchvisions_logits():
    public = torchvision.models.vit_b_16(image_size=32, num_classes=7).eval().double()
    torch.nn.init.normal_(public.heads.head.weight)
    model = empty("vit_base_patch16", num_classes=7, image_size=32).eval()
    model.load_state_dict(public.state_dict(), assign=True)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), public(images), rtol=0, atol=1e-9)


def test_timms_weights_give_timms_logits():
    public = timm.create_model("vit_small_patch16_224", img_size=32, num_classes=7).eval().double()
    model = empty("vit_small_patch16", num_classes=7, image_size=32).eval()
    model.load_state_dict(vit.from_timm(public.state_dict()), assign=True)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), public(images), rtol=0, atol=1e-9)


def normed(x, w, name, epsilon):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def mixed(x, qkv, heads):
    parts = qkv(x).split(x.shape[-1], dim=-1)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    scores = (q @ k.transpose(2, 3)) / math.sqrt(q.shape[-1])
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def spa(x, w, name, state):
    """The pyramid of the patches as they lie in the image; the first token is none of them."""
    side = math.isqrt(x.shape[1] - 1)
    grid = x[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    pyramid = torch.cat([F.adaptive_avg_pool2d(grid, n).flatten(1) for n in (1, 2, 4)], 1)
    hidden = torch.relu(pyramid @ w[f"{name}.excitation.0.weight"].T)
    return torch.sigmoid(hidden @ w[f"{name}.excitation.2.weight"].T), state


def of_means(gate):
    return lambda x, w, name, state: gate(x.mean(1), w, name, state)


GATES = {"_se": (of_means(se), False), "_dia_lstm": (of_means(dia_lstm), True), "_dia_spa": (spa, True)}


def gated(x, w, name, number, attention, state):
    gate, shared = GATES[attention]
    h, state = gate(x, w, name if shared else f"{name}.{number}", state)
    return x * h[:, None], state


def plain_vit(x, w, attention):
    x = F.conv2d(x, w["conv_proj.weight"], w["conv_proj.bias"], stride=16).flatten(2).transpose(1, 2)
    x = torch.cat([w["class_token"].expand(len(x), -1, -1), x], 1) + w["encoder.pos_embedding"]
    state = None
    for n in range(vit.LAYERS):
        p = f"encoder.layers.encoder_layer_{n}"
        weight, bias = w[f"{p}.self_attention.in_proj_weight"], w[f"{p}.self_attention.in_proj_bias"]
        a = mixed(normed(x, w, f"{p}.ln_1", 1e-6), lambda x, m=weight, b=bias: x @ m.T + b, 6)
        x = x + linear(a, w, f"{p}.self_attention.out_proj")
        a, state = gated(normed(x, w, f"{p}.ln_2", 1e-6), w, "encoder.layers.attention", n, attention, state)
        x = x + linear(F.gelu(linear(a, w, f"{p}.mlp.0")), w, f"{p}.mlp.3")
    return linear(normed(x, w, "encoder.ln", 1e-6)[:, 0], w, "heads.head")


def plain_uvit(x, t, w, attention):
    size, channels = x.shape[2], x.shape[1]
    half = w["pos_embed"].shape[2] // 2
    k = torch.arange(half) / half
    angles = t[:, None].float() * torch.exp(-math.log(10_000) * k)
    time = torch.cat([angles.cos(), angles.sin()], 1)[:, None].to(x.dtype)
    x = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=2).flatten(2).transpose(1, 2)
    x = torch.cat([time, x], 1) + w["pos_embed"]
    places = [*(f"in_blocks.{n}" for n in range(2)), "mid_block", *(f"out_blocks.{n}" for n in range(2))]
    kept, state = [], None
    for n, p in enumerate(places):
        if p.startswith("out"):
            x = linear(torch.cat([x, kept.pop()], -1), w, f"{p}.skip_linear")
        a = mixed(normed(x, w, f"{p}.norm1", 1e-5), lambda x, m=w[f"{p}.attn.qkv.weight"]: x @ m.T, 8)
        x = x + linear(a, w, f"{p}.attn.proj")
        a, state = gated(normed(x, w, f"{p}.norm2", 1e-5), w, "attention", n, attention, state)
        x = x + linear(F.gelu(linear(a, w, f"{p}.mlp.fc1")), w, f"{p}.mlp.fc2")
        if p.startswith("in"):
            kept.append(x)
    x = linear(normed(x, w, "norm", 1e-5), w, "decoder_pred")[:, 1:]
    picture = torch.zeros(len(x), channels, size, size, dtype=x.dtype)
    for i in range(size):
        for j in range(size):
            place = (i % 2 * 2 + j % 2) * channels
            picture[:, :, i, j] = x[:, i // 2 * (size // 2) + j // 2, place : place + channels]
    return F.conv2d(picture, w["final_layer.weight"], w["final_layer.bias"], padding=1)


def stirred(model):
    """Away from zeros and from gates that are all alike."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.double().eval()


@pytest.mark.parametrize("attention", GATES)
def test_vit_equals_a_plain_forward(attention, small):
    model = stirred(create_model(f"vit_small_patch16{attention}", num_classes=3, image_size=64))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = plain_vit(images, model.state_dict(), attention)
        assert (expected[0] - expected[1]).abs().max() > 1e-3
        torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("attention", GATES)
def test_uvit_equals_a_plain_forward(attention, small):
    model = stirred(create_model(f"uvit_small{attention}", image_size=8, in_channels=2))
    images, times = torch.randn(2, 2, 8, 8, dtype=torch.float64), torch.tensor([3.0, 700.5], dtype=torch.float64)
    with torch.no_grad():
        expected = plain_uvit(images, times, model.state_dict(), attention)
        assert (expected[0] - expected[1]).abs().max() > 1e-3
        torch.testing.assert_close(model(images, times), expected, rtol=1e-9, atol=1e-9)


def changed_by_a_step(model, loss):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.zero_grad()
    loss().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def test_a_vits_first_step_changes_the_classifier_that_starts_at_zero_and_its_second_everything(small):
    model = create_model("vit_small_patch16_dia_lstm", num_classes=2, image_size=32)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])

    def loss():
        return F.cross_entropy(model(images), labels)

    assert changed_by_a_step(model, loss) <= {"heads.head.weight", "heads.head.bias"}
    assert changed_by_a_step(model, loss) == dict(model.named_parameters()).keys()


def test_a_uvits_first_step_changes_everything(small):
    model = create_model("uvit_small_dia_lstm", image_size=8)
    images, times = torch.randn(2, 3, 8, 8), torch.rand(2) * 999
    changed = changed_by_a_step(model, lambda: F.mse_loss(model(images, times), torch.randn(2, 3, 8, 8)))
    assert changed == dict(model.named_parameters()).keys()


@pytest.mark.parametrize(
    ("name", "size", "classes", "place", "layers"),
    [
        ("vit_small_patch16_dia_lstm", 32, ("a", "b"), "encoder.layers.", 3),
        ("uvit_small_dia_lstm", 8, (), "", 5),
    ],
)
def test_transformers_are_saved_loaded_and_captured(tmp_path, name, size, classes, place, layers, small):
    model = create_model(name, num_classes=len(classes) or None, image_size=size).eval()
    preprocessing = Preprocessing(height=size, width=size, mean=(0.5,) * 3, std=(0.5,) * 3)
    info = CheckpointInfo(model=model.spec, data="folder:x", classes=classes, preprocessing=preprocessing)
    save_checkpoint(tmp_path / "m.safetensors", model, info)
    loaded = load(tmp_path / "m.safetensors")
    inputs = (torch.randn(2, 3, size, size), *(() if classes else (torch.rand(2),)))
    with torch.no_grad(), capture(loaded, "kind:channel") as records:
        assert torch.equal(loaded(*inputs), model(*inputs))
    assert list(records) == [(f"{place}attention.gate", call) for call in range(layers)]
    assert all(gate.shape == (2, 384 if classes else 64) for gate in records.values())


def test_attention_of_some_blocks_leaves_the_others_alone(small):
    model = create_model("uvit_small_dia_lstm", image_size=8, attention_blocks=(1, 4)).eval()
    with torch.no_grad(), capture(model, "kind:channel") as records:
        model(torch.randn(1, 3, 8, 8), torch.zeros(1))
    assert len(records) == 2


def test_published_weights_load_by_name(small):
    plain, model = create_model("uvit_small"), create_model("uvit_small_dia_lstm")
    load_backbone(model, plain.state_dict())
    assert torch.equal(model.out_blocks[1].skip_linear.weight, plain.out_blocks[1].skip_linear.weight)


@pytest.mark.parametrize("backbone", ["vit_small_patch16", "vit_base_patch16", "uvit_small"])
def test_gates_that_differ_from_place_to_place_are_refused_and_not_listed(backbone):
    listed = list_models(f"{backbone}*")
    assert len(listed) == 19
    for name in UNPLACED:
        assert f"{backbone}_{name}" not in listed
        with pytest.raises(ModelInputError, match=f"{backbone} does not take {name}, whose gate differs.*: eca, se,"):
            create_model(f"{backbone}_{name}")


@pytest.mark.parametrize("attention", [name.removeprefix("vit_small_patch16") for name in list_models("vit_small_*")])
def test_every_listed_attention_runs_and_reaches_its_parameters(attention, small):
    model = stirred(create_model(f"vit_small_patch16{attention}", image_size=32, num_classes=2)).float().train()
    model(torch.randn(3, 3, 32, 32)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_small_patch16", {"image_size": 40}, "image_size 40 must be a multiple of the patches' 16, up to 4096"),
        ("vit_small_patch16", {"image_size": 0}, "image_size 0 must be"),
        ("uvit_small", {"image_size": 10**30}, "must be a multiple of the patches' 2, up to 4096"),
        ("vit_small_patch16", {"batch_norm": False}, "has no option batch_norm. Accepted: attention_blocks"),
        ("vit_small_patch16_se", {"attention_blocks": (13,)}, "attention_blocks: there is no 13; accepted: 1 to 12"),
        ("uvit_small_se", {"attention_stages": (2,)}, "attention_stages: there is no 2; accepted: 1 to 1"),
        ("uvit_small", {"num_classes": 10}, "uvit_small is a network for noise prediction and has no classes"),
    ],
)
def test_impossible_transformers_are_refused(name, options, message):
    with torch.device("meta"), pytest.raises(ModelInputError, match=message):
        create_model(name, **options)


def test_images_of_another_size_are_refused(small):
    with pytest.raises(ModelInputError, match="images of 32x48 given; this network takes 32x32"):
        create_model("vit_small_patch16", image_size=32)(torch.randn(1, 3, 32, 48))
