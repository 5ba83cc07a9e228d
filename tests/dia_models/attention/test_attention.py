"""Every attention module equals its published formula, written plainly over the same weights."""

import pytest
import torch
import torch.nn.functional as F

from dia_models import ModelInputError, create_model
from dia_models.attention import attention_kind, attention_names

pytestmark = pytest.mark.numeric

N, SIZE = 64, (5, 7)


def linear(x, layer):
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def mlp(x, layers):
    return linear(linear(x, layers[0]).clamp(min=0), layers[2])


def circular_free_conv(y, kernel):
    """A 1-D convolution along the channels, zeros beyond the ends."""
    reach = len(kernel) // 2
    padded = F.pad(y, (reach, reach))
    return sum(weight * padded[:, i : i + y.shape[1]] for i, weight in enumerate(kernel))


def normed(z, norm):
    return (z - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias


def se(m, x, layer):
    return torch.sigmoid(mlp(x.mean((2, 3)), m.excitation))[:, :, None, None]


def eca(m, x, layer):
    return torch.sigmoid(circular_free_conv(x.mean((2, 3)), m.conv.weight[0, 0]))[:, :, None, None]


def srm(m, x, layer):
    mean, std = x.mean((2, 3)), (x.var((2, 3)) + 1e-5).sqrt()
    z = m.weights[:, 0] * mean + m.weights[:, 1] * std
    return torch.sigmoid(normed(z, m.norms[layer]))[:, :, None, None]


def spa(m, x, layer):
    parts = []
    for grid in (1, 2, 4):
        cells = [[0.0] * grid for _ in range(grid)]
        for i in range(grid):
            for j in range(grid):
                rows = slice(i * SIZE[0] // grid, -(-(i + 1) * SIZE[0] // grid))
                columns = slice(j * SIZE[1] // grid, -(-(j + 1) * SIZE[1] // grid))
                cells[i][j] = x[:, :, rows, columns].mean((2, 3))
        flat = torch.stack([torch.stack(row, 2) for row in cells], 2)
        parts.append(flat.flatten(1))
    return torch.sigmoid(mlp(torch.cat(parts, 1), m.excitation))[:, :, None, None]


def sem(m, x, layer):
    y = x.mean((2, 3))
    d = torch.sigmoid(linear(y, m.decision[0]))
    parts = (mlp(y, m.excitation), circular_free_conv(y, m.conv.weight[0, 0]), m.scale * y + m.shift)
    gate = 1
    for k, part in enumerate(parts):
        gate = gate * torch.sigmoid(d[:, k : k + 1] * part)
    return gate[:, :, None, None]


def spem(m, x, layer):
    most = m.pooled_scale * x.flatten(2).max(2).values + m.pooled_shift
    least = m.pooled_scale * x.flatten(2).min(2).values + m.pooled_shift
    p = m.mix**2 / (m.mix**2).sum()
    mixed = m.mixed_scale * (p[0] * most + p[1] * least) + m.mixed_shift
    return (torch.sigmoid(most + least) * torch.sigmoid(mixed))[:, :, None, None]


def cbam(m, x, layer):
    pooled = mlp(x.mean((2, 3)), m.channel.excitation) + mlp(x.flatten(2).max(2).values, m.channel.excitation)
    channel = torch.sigmoid(pooled)[:, :, None, None]
    x = x * channel
    extremes = torch.stack([x.max(1).values, x.mean(1)], 1)
    z = F.conv2d(extremes, m.spatial.conv.weight, padding=3)
    return channel * torch.sigmoid(normed(z, m.spatial.norms[layer]))


def sge(m, x, layer):
    gates = []
    for group, part in enumerate(x.chunk(len(m.weight), 1)):
        similarity = (part * part.mean((2, 3), keepdim=True)).sum(1)
        flat = similarity.flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-5)
        gate = torch.sigmoid(m.weight[group] * flat.view(similarity.shape) + m.bias[group])
        gates.append(gate[:, None].expand_as(part))
    return torch.cat(gates, 1)


PLAIN = {"se": se, "eca": eca, "srm": srm, "spa": spa, "sem": sem, "spem": spem, "cbam": cbam, "sge": sge}
OPTIONS = {"sge": {"groups": 16}}


def built(name, layers=1, **options):
    module = attention_kind(name).build(N, **OPTIONS.get(name, {}), **options)
    module.serve(layers)
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():  # away from zeros and ones
            parameter.uniform_(-0.5, 0.5)
        for buffer_name, buffer in module.named_buffers():
            if buffer_name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5)
    return module


def features():
    return (torch.randn(3, N, *SIZE, dtype=torch.float64) for _ in range(2))


def test_every_module_is_tested():
    individual = {name for name in attention_names() if not name.startswith(("dia_", "asr_"))}
    assert individual == set(PLAIN)


OF_VECTOR = ("eca", "se", "sem", "spa")


def test_gates_of_positions_and_deviations_have_no_constant_vector():
    assert [name for name in attention_names() if name.startswith("asr_")] == [f"asr_{name}" for name in OF_VECTOR]


@pytest.mark.parametrize("name", OF_VECTOR)
def test_a_learned_vector_goes_through_the_module_as_features_would(name):
    module, (branch, shortcut) = built(f"asr_{name}"), features()
    with torch.no_grad():
        gate = PLAIN[name](module, module.vector.expand(*SIZE, N).permute(2, 0, 1)[None], 0)
        total, state = module(branch, shortcut)
    assert state is None
    torch.testing.assert_close(total, shortcut + branch * gate, rtol=1e-9, atol=1e-9)
    assert count(f"asr_{name}", N) == count(name, N) + N
    assert attention_kind(f"asr_{name}").options() == attention_kind(name).options()


def test_the_vector_starts_as_published():
    assert attention_kind("asr_se").build(64).vector.tolist() == pytest.approx([0.1] * 64)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("layers", [1, 3])
def test_output_is_the_shortcut_plus_gate_times_branch(name, layers):
    module, state, gates = built(name, layers), None, []
    for layer in range(layers):
        branch, shortcut = features()
        with torch.no_grad():
            gate = PLAIN[name](module, branch, layer)
            total, state = module(branch, shortcut, state)
        torch.testing.assert_close(total, shortcut + branch * gate, rtol=1e-9, atol=1e-9)
        gates.append(gate.std())
    assert max(gates) > 1e-3  # a constant gate would prove little


@pytest.mark.parametrize("name", PLAIN)
def test_without_a_shortcut_there_is_only_the_recalibrated_branch(name):
    module, (branch, shortcut) = built(name), features()
    with torch.no_grad():
        torch.testing.assert_close(module(branch, None)[0], module(branch, shortcut)[0] - shortcut)


def lstm_step(cell, y, h, c, gates, activation):
    i, f, g, o = gates(cell, y, h).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * activation(c), c


def reduced(cell, y, h):
    return mlp(y, cell.input_gates) + mlp(h, cell.hidden_gates)


def full(cell, y, h):
    return linear(y, cell.input_gates) + linear(h, cell.hidden_gates)


def light(cell, y, h):
    def gates(x, part):
        small = (x @ part.reduce.weight.T).clamp(min=0)
        wide = torch.stack([small[:, n // part.reduction] for n in range(N)], 1)
        return torch.cat([part.weight[k] * wide + part.bias[k] for k in range(4)], 1)

    return gates(y, cell.input_gates) + gates(h, cell.hidden_gates)


LSTMS = {
    "reduced": ("dia_lstm", {}, [reduced], torch.sigmoid),
    "tanh": ("dia_lstm", {"activation": "tanh"}, [reduced], torch.tanh),
    "relu": ("dia_lstm", {"activation": "relu"}, [reduced], torch.relu),
    "three cells": ("dia_lstm", {"cells": 3}, [reduced, full, full], torch.sigmoid),
    "standard": ("dia_lstm", {"standard": True}, [full], torch.tanh),
    "light": ("dia_lstm_light", {}, [light], torch.sigmoid),
}


@pytest.mark.parametrize("case", LSTMS)
def test_lstms_equal_their_cells_run_one_by_one(case):
    name, options, gates, activation = LSTMS[case]
    module, state = built(name, **options), None
    states = [(torch.zeros(3, N, dtype=torch.float64),) * 2 for _ in gates]
    for _ in range(3):
        branch, shortcut = features()
        with torch.no_grad():
            total, state = module(branch, shortcut, state)
            y = branch.mean((2, 3))
            for k, (cell, gate) in enumerate(zip(module.cells, gates, strict=True)):
                states[k] = lstm_step(cell, y, *states[k], gate, activation)
                y = states[k][0]
        torch.testing.assert_close(total, shortcut + branch * y[:, :, None, None], rtol=1e-9, atol=1e-9)


def count(name, channels, **options):
    return sum(p.numel() for p in attention_kind(name).build(channels, **options).parameters())


@pytest.mark.parametrize("n", [64, 128, 256])
def test_parameters_are_those_of_the_formulas(n):
    k = 3 if n == 64 else 5
    assert count("se", n, reduction=4) == 2 * n * n // 4 + n + n // 4
    assert count("eca", n) == k
    assert count("cbam", n) == 2 * n * n // 16 + n + n // 16 + 98 + 2
    assert count("srm", n) == 4 * n
    assert count("spa", n) == 22 * n * n // 16
    assert count("sem", n) == 2 * n * n // 16 + n + n // 16 + 3 * n + 3 + k + 2 * n
    assert count("spem", n) == 4 * n + 2
    assert count("sge", n) == 128
    assert count("dia_lstm", n) == 10 * n * n // 4 + 2 * n // 4 + 8 * n
    assert count("dia_lstm", n, standard=True) == 8 * n * n + 8 * n
    assert count("dia_lstm_light", n) == 2 * n * n // 8 + 16 * n


@pytest.mark.parametrize(
    ("name", "gate"), [("srm", 0.5), ("sem", 0.094), ("spem", 0.032), ("dia_lstm", 0.25), ("sge", 0.731)]
)
def test_gates_start_where_the_authors_start_them(name, gate):
    module = attention_kind(name).build(256)
    seen = []
    module.gate.register_forward_hook(lambda _, __, output: seen.append(output.mean().item()))
    module.train()(torch.randn(64, 256, 8, 8), torch.zeros(64, 256, 8, 8))
    assert seen == [pytest.approx(gate, rel=0.1)]


@pytest.mark.parametrize("name", ["srm", "cbam"])
def test_shared_modules_keep_a_batch_norm_per_layer_unless_told_otherwise(name):
    each = create_model(f"cifar_resnet29_dia_{name}").stages[0].attention
    one = create_model(f"cifar_resnet29_dia_{name}", share_bn=True).stages[0].attention
    norms = [[m for m in a.modules() if "BatchNorm" in type(m).__name__] for a in (each, one)]
    assert [len(found) for found in norms] == [3, 1]


def test_sharing_srm_saves_what_the_paper_leaves_out():
    """47.2 % for 18 blocks; the paper says about 40 %."""
    plain, individual, shared = (
        sum(p.numel() for p in create_model(f"cifar_resnet164{a}").parameters()) for a in ("", "_srm", "_dia_srm")
    )
    assert 1 - (shared - plain) / (individual - plain) == pytest.approx(0.472, abs=5e-4)


def test_mix_pooling_adds_its_penalty_to_the_training_loss():
    from dia_models.classification.training import ClassifierTraining
    from dia_models.data import Preprocessing
    from dia_models.training.recipe import load_recipe

    model = create_model("cifar_resnet20_spem").eval()
    preprocessing = Preprocessing(height=16, width=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    training = ClassifierTraining(model, load_recipe("paper"), preprocessing, 4, 0)
    training.log = lambda *_, **__: None
    pixels, labels = torch.randint(0, 255, (4, 16, 16, 3), dtype=torch.uint8), torch.tensor([0, 1, 2, 3])
    loss = training.training_step((pixels, labels))
    entropy = F.cross_entropy(model(preprocessing(pixels)), labels)
    torch.testing.assert_close(loss, entropy + 6 * 0.1 * (0.25 + 0.25))  # six modules, p = (1/2, 1/2)


def test_style_weights_have_no_weight_decay():
    from dia_models.classification.training import ClassifierTraining
    from dia_models.data import Preprocessing
    from dia_models.training.recipe import load_recipe

    model = create_model("cifar_resnet20_srm")
    preprocessing = Preprocessing(height=16, width=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    optimizer = ClassifierTraining(model, load_recipe("paper"), preprocessing, 4, 0).configure_optimizers()["optimizer"]
    decayed, undecayed = optimizer.param_groups
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (1e-4, 0.0)
    assert len(undecayed["params"]) == 6
    assert len(decayed["params"]) + 6 == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sge", {"groups": 48}, "48 groups must divide the 64 channels; try 32"),
        ("sge", {"groups": 0}, "0 groups must divide the 64 channels; try 1"),
        ("dia_lstm", {"cells": 0}, "0 cells given; at least 1 is needed"),
        ("dia_lstm", {"activation": "sigmoidal"}, "unknown activation 'sigmoidal'; did you mean 'sigmoid'"),
        ("spa", {"reduction": 128}, "reduction 128 must divide the 64 channels"),
        ("dia_lstm_light", {"reduction": 3}, "reduction 3 must divide the 64 channels"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(ModelInputError, match=message):
        create_model(f"cifar_resnet20_{name}", **options)
