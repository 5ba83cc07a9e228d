"""Floating-point operations: counts worked out by hand, whatever code torch runs them with."""

import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from dia_analysis import count_flops
from dia_analysis.cost.flops import flop_count
from dia_models import create_model

pytestmark = pytest.mark.numeric

BILLION = 1e9


class Doing(nn.Module):
    """Applies a function to the image and some modules."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.parts)


def transformer(tokens, width, hidden, layers):
    """Four projections of width², two layers of width x hidden, and two products of all tokens with all."""
    return layers * (2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * tokens**2 * width)


def vit(image, patch, width, hidden, layers, classes):
    """The patches' convolution, the layers on all patches and the class token, and the head."""
    patches = (image // patch) ** 2
    embedding, head = 2 * patches * 3 * patch**2 * width, 2 * width * classes
    return embedding + transformer(patches + 1, width, hidden, layers) + head


@pytest.fixture(params=[True, False], ids=["fast path", "step by step"])
def fast(request):
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(request.param)
    yield request.param
    assert torch.backends.mha.get_fastpath_enabled() is request.param
    torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.parametrize(
    ("build", "expected", "printed"),
    [
        (
            lambda: create_model("vit_small_patch16", num_classes=1000, image_size=224),
            vit(224, 16, 384, 1536, 12, 1000),
            9.198,
        ),
        (torchvision.models.vit_b_16, vit(224, 16, 768, 3072, 12, 1000), 35.13),
    ],
)
def test_vision_transformers(fast, build, expected, printed):
    with torch.device("meta"):
        model, image = build(), torch.randn(1, 3, 224, 224)
    assert expected / BILLION == pytest.approx(printed, abs=0.005)
    assert count_flops(model, image) == expected


@pytest.mark.parametrize("fused", [True, False])
def test_timms_attention_fused_or_not(fused):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model, image = timm.create_model("vit_tiny_patch16_224"), torch.randn(1, 3, 224, 224)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    assert count_flops(model, image) == vit(224, 16, 192, 768, 12, 1000)


def layers_of_torch(**options):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor="norm_first" not in options)


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
def test_torchs_transformer(fast, options):
    assert flop_count(layers_of_torch(**options), torch.randn(1, 5, 16)).flops == transformer(5, 16, 32, 2)


def test_a_padding_mask_changes_nothing(fast):
    mask = torch.tensor([[False, False, False, True, True]])
    masked = Doing(lambda x, encoder: encoder(x, src_key_padding_mask=mask), layers_of_torch())
    assert count_flops(masked, torch.randn(1, 5, 16)) == transformer(5, 16, 32, 2)


def test_fused_operations_of_torch_called_directly():
    """As scripts call them, in which torch has chosen the fast path for good."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    mha, x = layer.self_attn, torch.randn(1, 5, 16)
    attention = (mha.in_proj_weight, mha.in_proj_bias, mha.out_proj.weight, mha.out_proj.bias)
    norms = (layer.norm1.weight, layer.norm1.bias, layer.norm2.weight, layer.norm2.bias)
    rest = (layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias)

    def whole(x, layer):
        return torch._transformer_encoder_layer_fwd(x, 16, 4, *attention, True, False, 1e-5, *norms, *rest)

    def half(x, mha):
        return torch._native_multi_head_attention(x, x, x, 16, 4, *attention)[0]

    assert count_flops(Doing(whole, layer), x) == transformer(5, 16, 32, 1)
    assert count_flops(Doing(half, mha), x) == transformer(5, 16, 0, 1)


BACKENDS = [torch.nn.attention.SDPBackend.FLASH_ATTENTION, torch.nn.attention.SDPBackend.MATH]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": torch.zeros(6, 6)}])
def test_attention_products_by_every_way(backend, options):
    """4 heads of 6 queries and 6 keys with 8 features, and values of 8: 2 products of 6 x 6 x 8, masked or not."""
    q = torch.randn(1, 4, 6, 8)
    with torch.nn.attention.sdpa_kernel(backend):
        count = count_flops(Doing(lambda x: F.scaled_dot_product_attention(x, x, x, **options)), q)
    assert count == 2 * 2 * 4 * 6 * 6 * 8


def test_fewer_heads_of_keys_than_of_queries():
    q = torch.randn(1, 4, 6, 8)
    grouped = Doing(lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True))
    assert count_flops(grouped, q) == 2 * 2 * 4 * 6 * 6 * 8


X = torch.randn(1, 5, 16)  # read as 5 channels of 16 values, or as 5 tokens of 16 features
Q = torch.randn(1, 4, 7, 9)


@pytest.mark.parametrize(
    ("model", "x", "expected"),
    [
        (nn.Conv1d(5, 8, 3), X, 2 * 14 * 8 * 5 * 3),
        (nn.Conv1d(5, 10, 3, groups=5, padding=1), X, 2 * 16 * 10 * 3),
        (nn.Conv2d(4, 8, 3, groups=2, stride=2), Q, 2 * 3 * 4 * 8 * 2 * 9),
        (nn.Conv2d(4, 4, 3, groups=4, padding=2, dilation=2), Q, 2 * 63 * 4 * 9),
        (nn.Conv3d(1, 6, 2), torch.randn(1, 1, 3, 4, 5), 2 * (2 * 3 * 4) * 6 * 8),
        (nn.ConvTranspose1d(5, 8, 3, stride=2), X, 2 * 16 * 5 * 8 * 3),
        (nn.ConvTranspose2d(4, 8, 3, stride=2, groups=2), Q, 2 * 63 * 4 * 4 * 9),
        (nn.ConvTranspose3d(1, 6, 2), torch.randn(1, 1, 3, 4, 5), 2 * 60 * 6 * 8),
        (nn.Linear(16, 3), X, 2 * 5 * 16 * 3),
        (nn.Linear(16, 3, bias=False), X, 2 * 5 * 16 * 3),
        (nn.Bilinear(16, 16, 3), X, None),
        (Doing(lambda x: x @ x.mT), X, 2 * 5 * 5 * 16),
        (Doing(lambda x: x[0] @ x[0].T), X, 2 * 5 * 5 * 16),
        (Doing(lambda x: x[0] @ x[0, 0]), X, 2 * 5 * 16),
        (Doing(lambda x: x[0, 0] @ x[0, 1]), X, 2 * 16),
        (Doing(lambda x: torch.einsum("bid,bjd->bij", x, x)), X, 2 * 5 * 5 * 16),
        (Doing(lambda x: torch.einsum("bchw,bcxy->bhwxy", x, x)), Q, 2 * 63 * 63 * 4),
        (Doing(lambda x: torch.tensordot(x, x, dims=([2], [2]))), X, 2 * 5 * 5 * 16),
        (Doing(lambda x: torch.addmm(x[0, :, :5], x[0], x[0].T)), X, 2 * 5 * 5 * 16),
        (Doing(lambda x: torch.addmv(x[0, :, 0], x[0], x[0, 0])), X, 2 * 5 * 16),
        (Doing(lambda x: torch.addbmm(x[0, :, :5], x, x.mT)), X, 2 * 5 * 5 * 16),
        (Doing(lambda x: torch.baddbmm(x[:, :, :5], x, x.mT)), X, 2 * 5 * 5 * 16),
        (Doing(lambda x: x[:, :, :5].clone().baddbmm_(x, x.mT)), X, 2 * 5 * 5 * 16),
        (Doing(lambda x: torch.mm(x[0], x[0].T, out=torch.empty(5, 5))), X, 2 * 5 * 5 * 16),
        (Doing(torch.inference_mode()(lambda x, linear: linear(x)), nn.Linear(16, 3)), X, 2 * 5 * 16 * 3),
        (Doing(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")), Q, 0),
        (nn.Sequential(nn.BatchNorm2d(4), nn.Sigmoid(), nn.AvgPool2d(2), nn.Softmax(1)), Q, 0),
        (Doing(lambda x: x * x.norm() + torch.linalg.vector_norm(x)), Q, 0),
    ],
)
def test_layers_by_hand(model, x, expected):
    if isinstance(model, nn.Bilinear):
        model, expected = Doing(lambda x, bilinear: bilinear(x, x), model), 2 * 15 * 16 * 16 + 2 * 15 * 16
    found = flop_count(model, x)
    assert (found.flops, found.uncounted, found.unseen) == (expected, {}, 0)


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_recurrent_layers(cell, gates, bias, both):
    """5 steps of 16 values, two layers of 8: each gate has 8 rows for the input and 8 for what was kept."""
    model = cell(16, 8, 2, bias=bias, bidirectional=both, batch_first=True)
    ways = 2 if both else 1
    first, second = gates * 8 * (16 + 8), gates * 8 * (8 * ways + 8)
    assert count_flops(model, torch.randn(1, 5, 16)) == 2 * 5 * ways * (first + second)


def test_cells_and_projections():
    assert count_flops(nn.LSTMCell(16, 8), torch.randn(1, 16)) == 2 * 4 * 8 * (16 + 8)
    assert count_flops(nn.GRUCell(16, 8), torch.randn(1, 16)) == 2 * 3 * 8 * (16 + 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: no fused code for projections
        projected = count_flops(nn.LSTM(16, 8, proj_size=4, batch_first=True), torch.randn(1, 5, 16))
    assert projected == 2 * 5 * (4 * 8 * (16 + 4) + 8 * 4)


def test_a_deformable_convolution_is_one():
    model = Doing(lambda x, conv: conv(x, torch.zeros(1, 18, 5, 7)), torchvision.ops.DeformConv2d(4, 6, 3))
    assert count_flops(model, Q) == 2 * 35 * 6 * 4 * 9


def net():
    return nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(140, 3))


NET = 2 * 35 * 4 * 4 * 9 + 2 * 140 * 3


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_scripted_and_compiled_networks():
    script = torch.jit.script(net().eval())
    for _ in range(3):
        script(Q)  # torch looks for what it can fuse
    assert count_flops(script, Q) == NET
    assert count_flops(nn.Sequential(torch.jit.freeze(script)), Q) == NET
    compiled = torch.compile(net())
    assert count_flops(compiled, Q) == NET
    optimised = flop_count(nn.Sequential(torch.jit.optimize_for_inference(script)), Q)
    assert optimised.flops == NET or optimised.uncounted


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.fft.rfft2(x).abs(), "aten._fft_r2c"),
        (lambda x: torch.cdist(x, x), "aten._cdist_forward"),
        (lambda x: torch.sparse.mm(x[0].to_sparse(), x[0].T), "aten._sparse_addmm"),
        (lambda x: torch.linalg.inv(x @ x.mT + torch.eye(5)), "aten.linalg_inv_ex"),
    ],
)
def test_products_without_a_formula_are_named(function, name):
    assert flop_count(Doing(function), X).uncounted == {name: 1}
    with pytest.warns(UserWarning, match=rf"not counted: {name} \(1 call\)"):
        count_flops(Doing(function), X)


def test_other_peoples_operations_are_named_until_they_bring_a_formula():
    @torch.library.custom_op("dia_test::attention", mutates_args=())
    def attention(x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    found = flop_count(Doing(lambda x, linear: linear(attention(attention(x))), nn.Linear(9, 9)), Q)
    assert (found.flops, found.uncounted) == (2 * 28 * 9 * 9, {"dia_test.attention": 2})

    @torch.utils.flop_counter.register_flop_formula(torch.ops.dia_test.attention)
    def formula(shape, *args, **more):
        return 1000

    try:
        assert flop_count(Doing(attention), Q).flops == 1000
    finally:
        del torch.utils.flop_counter.flop_registry[torch.ops.dia_test.attention]


def test_parameters_that_torch_does_not_see_in_use_are_counted():
    def outside(x, linear):
        return torch.from_numpy(x.numpy() @ linear.weight.numpy().T)

    linear = nn.Linear(16, 3)
    assert flop_count(Doing(outside, linear), X).unseen == 16 * 3 + 3
    assert flop_count(Doing(lambda x, a, b: a(x), linear, nn.Linear(7, 7)), X).unseen == 7 * 7 + 7
    assert flop_count(Doing(lambda x, linear: linear(x)[..., None], linear), X).unseen == 0


class Dropping(nn.Module):
    """Transformer layers of which some are left out at random; a parameter goes through them, seen as a view."""

    def __init__(self, always):
        super().__init__()
        self.always, self.token = always, nn.Parameter(torch.randn(1, 1, 16))
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True) for _ in range(8))
        self.head, self.norm = nn.Linear(16, 2), nn.BatchNorm1d(16)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        token = nn.Identity()(self.token.expand(len(x), -1, -1))
        for layer in self.layers:
            if not (self.training or self.always) or torch.rand(()) + random.random() + np.random.rand() > 1.5:
                token = layer(token)
        return self.head(self.norm(token[:, 0]))


def test_layers_that_are_left_out_at_random_while_training():
    model = Dropping(always=False).train()
    assert count_flops(model, torch.randn(3, 3, 4, 4)) == transformer(1, 16, 32, 8) + 2 * 16 * 2


def test_a_network_that_draws_layers_is_counted_for_one_draw_and_left_as_it_was():
    model = Dropping(always=True).train()
    model.layers[2].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    counts = {count_flops(model, torch.randn(1, 3, 4, 4, generator=torch.Generator())) for _ in range(3)}
    (count,) = counts
    assert (count - 2 * 16 * 2) % transformer(1, 16, 32, 1) == 0
    assert 0 < count - 2 * 16 * 2 < transformer(1, 16, 32, 8)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == numbers[1:]
    hooks = [module._forward_hooks or module._forward_pre_hooks for module in model.modules()]
    assert not any(hooks)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_failing_network_is_left_as_it_was_too(fast):
    model = Doing(lambda x, linear: linear(x[..., :3]), nn.Linear(16, 3)).train()
    with pytest.raises(RuntimeError, match="shapes"):
        count_flops(model, X)
    assert all(module.training for module in model.modules())
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None
