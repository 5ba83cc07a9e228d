"""Cost: counted by hand, right for shared modules, and ratios that a planted slowness explains."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
import xarray as xr
from torch import nn

from dia_analysis import AnalysisInputError, Subject, count_flops, measure_cost
from dia_analysis.cost.measure import count_attention_parameters, count_parameters, median_interval
from dia_analysis.cost.timing import interleaved_seconds
from dia_models import create_model
from dia_models.attention import attention_names

pytestmark = pytest.mark.numeric


class Small(nn.Module):
    """A strided and a grouped convolution, a ReLU, a linear layer that runs `times` times, and an idle one."""

    def __init__(self, times):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(4, 8, 1, groups=2, bias=False)
        self.repeated, self.idle, self.times = nn.Linear(8, 8), nn.Linear(100, 100), times

    def forward(self, x):
        x = self.grouped(self.first(x).relu()).mean((2, 3))
        for _ in range(self.times):
            x = self.repeated(x)
        return x


@pytest.mark.parametrize("times", [0, 1, 5])
@pytest.mark.parametrize("batch", [1, 3])
def test_flops_by_hand(times, batch):
    """Images of 8x8: 4x4 outputs; 2 operations for each of 27 and then 2 inputs of every output value."""
    first, grouped, linear = 2 * 27 * 4 * 16, 2 * 2 * 8 * 16, 2 * 8 * 8
    assert count_flops(Small(times), torch.randn(batch, 3, 8, 8)) == first + grouped + times * linear


def test_flops_of_resnet18_as_published():
    """1.81 to 1.82 billion multiply-adds for an image of 224x224, as its publishers and torchvision print."""
    with torch.device("meta"):
        model, image = torchvision.models.resnet18(), torch.randn(1, 3, 224, 224)
    assert count_flops(model, image) / 2 == pytest.approx(1.814e9, rel=0.001)


@pytest.mark.parametrize("name", ["se", "eca", "cbam", "srm", "spa", "sem", "spem", "sge"])
def test_shared_modules_run_the_same_operations_as_individual_ones(name):
    image = torch.randn(1, 3, 8, 8)
    individual, shared = (create_model(f"cifar_resnet29_{prefix}{name}") for prefix in ("", "dia_"))
    assert count_flops(individual, image) == count_flops(shared, image)
    if name not in ("cbam", "srm", "eca", "spem", "sge"):
        assert count_parameters(shared) < count_parameters(individual)


@pytest.mark.parametrize("name", [name for name in attention_names() if not name.startswith("asr_")])  # no attention
def test_attention_parameters_are_those_that_the_plain_backbone_lacks(name):
    plain, model = create_model("cifar_resnet29"), create_model(f"cifar_resnet29_{name}")
    added = count_parameters(model) - count_parameters(plain)
    assert added > 0
    assert count_attention_parameters(model) == added


def test_attention_parameters_by_formula():
    """DIA-LSTM once per stage, SE once per block: 10N²/r + 2N/r + 8N with r = 4, and 2N²/r + N/r + N with r = 16."""
    sizes = (64, 128, 256)
    lstm = sum(10 * n * n // 4 + 2 * n // 4 + 8 * n for n in sizes)
    se = sum(2 * n * n // 16 + n // 16 + n for n in sizes)
    assert count_attention_parameters(create_model("cifar_resnet29_dia_lstm")) == lstm
    assert count_attention_parameters(create_model("cifar_resnet29_dia_se")) == se
    assert count_attention_parameters(create_model("cifar_resnet29_se")) == 3 * se
    assert count_attention_parameters(create_model("cifar_resnet29")) == 0


def test_self_attention_is_its_projections_without_norms_and_the_layers_after_it():
    """4 projections of width², with biases, in each layer: in plain transformers of ours, torchvision's and timm's."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        small = create_model("vit_small_patch16", num_classes=1000, image_size=224)
        networks = {
            (12, 768): torchvision.models.vit_b_16(),
            (12, 192): timm.create_model("vit_tiny_patch16_224"),
        }
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32), 2, enable_nested_tensor=False)
        tokens = torch.randn(2, 5, 16)
    for (layers, width), model in networks.items():
        assert count_attention_parameters(model) == layers * 4 * (width**2 + width)
    assert count_attention_parameters(small) == 7_096_320 == 12 * 4 * (384**2 + 384)
    assert count_attention_parameters(encoder, tokens) == 2 * 4 * (16**2 + 16)


def test_shared_attention_of_a_transformer_counts_without_its_self_attention():
    with torch.device("meta"):
        plain, model = create_model("vit_small_patch16"), create_model("vit_small_patch16_dia_lstm")
    assert count_attention_parameters(model) == count_parameters(model) - count_parameters(plain)


@pytest.mark.parametrize(
    "name", ["resnet18_se", "resnet18_dia_cbam", "cifar_wrn52_4_dia_lstm", "cifar_resnext101_8x32_dia_lstm"]
)
def test_attention_parameters_are_those_of_the_modules_called_so(name):
    """Of networks whose attention sits in modules named `attention`."""
    with torch.device("meta"):
        model = create_model(name)
    named = {id(p): p.numel() for path, p in model.named_parameters() if "attention" in path.split(".")}
    assert count_attention_parameters(model) == sum(named.values())


@pytest.mark.parametrize("name", ["uvit_tiny_dia_lstm", "retinanet_resnet18_fpn_dia_lstm"])
def test_attention_parameters_of_networks_that_take_more_than_images(name):
    with torch.device("meta"):
        model, images, times = create_model(name), torch.randn(2, 3, 64, 64), torch.rand(2)
        model, inputs = (model.backbone, images) if "retina" in name else (model, (images[..., :8, :8], times))
    named = {id(p): p.numel() for path, p in model.named_parameters() if "attention" in path.split(".")}
    assert count_attention_parameters(model, inputs) == sum(named.values())


def test_attention_parameters_of_other_peoples_networks():
    """Squeeze-excitation's two layers, N to M and M to N with biases, and efficient channel attention's few weights."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        mobile, residual = torchvision.models.mobilenet_v3_small(), timm.create_model("seresnet18")
        efficient = timm.create_model("ecaresnet26t")
    for model, marks in ((mobile, ("fc1", "fc2")), (residual, ("se",)), (efficient, ("se",))):
        named = [p.numel() for path, p in model.named_parameters() if set(marks) & set(path.split("."))]
        assert count_attention_parameters(model) == sum(named) > 0
    widths = {64: 8, 128: 8, 256: 16, 512: 32}
    assert count_attention_parameters(residual) == sum(2 * (2 * n * m + n + m) for n, m in widths.items())


def test_what_the_flops_lack_is_said():
    class Fourier(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Conv2d(3, 3, 1), nn.Linear(30, 40)

        def forward(self, x):
            return torch.fft.rfft2(self.used(x)).abs()

    result = measure_cost({"net": Subject(Fourier(), torch.randn(2, 3, 8, 8))}, rounds=6)
    (model,) = result.to_dict()["models"]
    assert (model["flops"], model["flops_uncounted"]) == (2 * 9 * 64, {"aten._fft_r2c": 1})
    assert model["parameters_unseen"] == 1240
    said = result.summary()
    assert "A batch is 2 images of 8x8; median of 6 rounds on cpu" in said
    assert "The FLOPs of net lack operations that have no formula: aten._fft_r2c (1 call)." in said
    assert "1,240 of the parameters of net were used by no operation that torch can see" in said
    complete = measure_cost({"net": Subject(nn.Conv2d(3, 3, 1), torch.randn(1, 3, 8, 8))}, rounds=6)
    assert "A batch is 1 image of 8x8" in complete.summary()
    assert "lack" not in complete.summary()
    assert "torch can see" not in complete.summary()


def test_a_batch_norm_that_attention_needs_is_counted_by_the_difference_alone():
    image = torch.randn(1, 3, 8, 8)
    subjects = {
        "plain": Subject(create_model("cifar_preresnet20"), image),
        "lstm": Subject(create_model("cifar_preresnet20_dia_lstm"), image, "plain"),
    }
    network = measure_cost(subjects, rounds=6).networks[1]
    norms = 2 * 2 * (64 + 128 + 256)  # a weight and a bias for each channel of two blocks in each stage
    assert network.attention_parameters - network.attention_module_parameters == norms


class Clock:
    """Shows what was spent, and a little more in each round, so that no machine's speed is in the test."""

    def __init__(self):
        self.now, self.spent = 0.0, 0

    def spend(self, milliseconds):
        self.spent += 1
        self.now += (milliseconds + 0.1 * (self.spent % 7)) / 1000

    def __call__(self):
        return self.now


class Spender(nn.Module):
    """Takes some milliseconds of a clock."""

    def __init__(self, clock, milliseconds):
        super().__init__()
        self.clock, self.milliseconds = clock, milliseconds

    def forward(self, x):
        self.clock.spend(self.milliseconds)
        return x


def test_a_planted_slowness_is_found_and_none_is_not(monkeypatch):
    clock, image = Clock(), torch.zeros(2, 1, 4, 4)
    subjects = {
        name: Subject(Spender(clock, ms), image, "base") for name, ms in {"base": 20, "slow": 30, "same": 20}.items()
    }
    monkeypatch.setattr("dia_analysis.cost.measure.interleaved_seconds", partial(interleaved_seconds, clock=clock))
    base, slow, same = measure_cost(subjects, rounds=15).networks
    assert slow.latency_ratio == pytest.approx(1.5, abs=0.05)
    assert slow.interval[0] > 1.4
    assert same.interval[0] <= 1 <= same.interval[1]
    assert (base.latency_ratio, base.interval) == (1.0, (1.0, 1.0))
    assert slow.latency_ms >= 30
    assert len(slow.seconds) == 15
    np.testing.assert_allclose(slow.ratios, slow.seconds / base.seconds)


def test_every_round_runs_every_function_once_in_turn():
    ran = []
    seconds = interleaved_seconds({name: lambda name=name: ran.append(name) for name in "abc"}, 4, warm_up=2)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4, "c": 4}
    rounds = ["".join(ran[i : i + 3]) for i in range(0, 18, 3)]
    assert rounds == ["abc", "bca", "cab", "abc", "bca", "cab"]


def test_the_interval_of_a_median():
    """Of the binomial tables: the k-th of n values from either end, and nothing narrower."""
    for n, k in ((6, 1), (8, 1), (9, 2), (10, 2), (15, 4), (20, 6), (50, 18), (100, 40)):
        values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
        assert median_interval(values) == (k, n + 1 - k), n
    assert median_interval(np.full(9, 1.25)) == (1.25, 1.25)


def test_the_interval_covers_the_median_at_least_as_often_as_it_says():
    """Exactly 1 - 2 P(B < k) of samples: 0.9688 with 6 values and 0.9586 with 20; within 4 standard errors of 2,000."""
    random = np.random.default_rng(5)
    for n, covered in ((6, 0.96875), (20, 0.95861)):
        intervals = [median_interval(random.lognormal(0.0, 0.1, n)) for _ in range(2000)]
        hits = np.mean([low <= 1.0 <= high for low, high in intervals])
        assert hits == pytest.approx(covered, abs=4 * (covered * (1 - covered) / 2000) ** 0.5)


def test_fewer_rounds_than_an_interval_takes_are_refused():
    subject = Subject(nn.Identity(), torch.zeros(1, 1, 4, 4))
    with pytest.raises(AnalysisInputError, match="5 given; a 95 % interval takes 6 or more"):
        measure_cost({"a": subject}, rounds=5)


def test_the_networks_are_left_as_they_were():
    model = create_model("cifar_resnet20_se").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_cost({"net": Subject(model, torch.randn(2, 3, 8, 8))}, rounds=6)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_json_document_and_the_saved_result(tmp_path):
    image = torch.randn(2, 3, 8, 8)
    subjects = {
        "plain": Subject(create_model("cifar_resnet20"), image, "plain"),
        "se": Subject(create_model("cifar_resnet20_se"), image, "plain"),
        "alone": Subject(create_model("cifar_resnet20_se"), image),
    }
    result = measure_cost(subjects, rounds=6)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (document["schema"], document["device"], document["rounds"]) == ("dia.cost/1", "cpu", 6)
    assert document["threads"] == torch.get_num_threads()
    model = document["models"][1]
    fields = "name parameters attention_parameters flops latency_ms latency_ratio latency_ratio_interval batch_size"
    assert set(fields.split()) <= model.keys()
    assert (model["baseline"], model["batch_size"], model["image_size"]) == ("plain", 2, [8, 8])
    assert model["attention_parameters"] == model["attention_module_parameters"] > 0
    alone = document["models"][2]
    assert (alone["latency_ratio"], alone["latency_ratio_interval"]) == (None, None)
    assert alone["attention_parameters"] == model["attention_parameters"]
    folder = result.save(tmp_path / "out")
    assert json.loads((folder / "cost.json").read_text()) == document
    with xr.open_dataset(folder / "seconds.nc") as times:
        assert times["network"].values.tolist() == ["plain", "se", "alone"]
        np.testing.assert_allclose(times["seconds"][1], result.networks[1].seconds)
    assert "95 % interval" in result.summary()
    assert result._repr_html_().startswith("<pre>network")


def test_a_baseline_must_be_among_the_networks():
    with pytest.raises(AnalysisInputError, match="a is compared with b, which is not among a"):
        measure_cost({"a": Subject(nn.Identity(), torch.zeros(1, 1, 4, 4), "b")})
    with pytest.raises(AnalysisInputError, match="there is no network"):
        measure_cost({})
