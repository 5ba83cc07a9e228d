"""Gradients at stages' outputs: in closed form, against a plain autograd loop, planted, degenerate, side effects."""

import copy
import json
from inspect import unwrap
from math import log, log10

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn
from torch.utils.checkpoint import checkpoint

from dia_analysis import AnalysisInputError, GradientResult, measure_gradients, network_gradients
from dia_analysis.gradients.change import decades, decades_text, word
from dia_models import create_model

pytestmark = pytest.mark.numeric


class Factor(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x):
        return x * self.factor


class Chain(nn.Module):
    """Factors, one after the other; the two channels are the logits.

    For images of zeros both classes have probability 1/2, so the gradient at the logits is ±1/2 by image, whatever
    the batch, and at the output of a factor it is that times the factors that follow.
    """

    def __init__(self, *factors):
        super().__init__()
        self.factors = nn.Sequential(*map(Factor, factors))

    def forward(self, x):
        return self.factors(x).flatten(1)


def zeros(*sizes):
    return [(torch.zeros(size, 2, 1, 1), torch.arange(size) % 2) for size in sizes]


def of_chain(*factors, batches=None):
    return network_gradients(Chain(*factors), batches or zeros(4), points="factors.*")


def means(network):
    return [stage.magnitudes.mean for stage in network.stages]


def test_in_closed_form():
    """It is 1/2 at the end; the factors after the third, second and first output are 1, 5, 15."""
    network = of_chain(2, 3, 5)
    assert means(network) == pytest.approx([15 / 2, 5 / 2, 1 / 2], rel=1e-6)
    assert [stage.module for stage in network.stages] == ["factors.0", "factors.1", "factors.2"]
    for stage in network.stages:
        found = stage.magnitudes
        assert (found.count, found.zeros, found.nonfinite) == (8, 0, 0)
        assert found.variance == pytest.approx(0, abs=1e-16)
        assert found.quantile(0.5) == pytest.approx(found.mean, rel=1e-7)
    assert network.loss == pytest.approx(np.log(2), rel=1e-6)
    assert (network.num_images, network.batch_sizes) == (4, (4,))


def test_images_of_a_smaller_batch_weigh_as_much():
    network = of_chain(2, 3, batches=zeros(4, 1))
    assert (network.num_images, network.batch_sizes) == (5, (4, 1))
    assert network.loss == pytest.approx(np.log(2), rel=1e-6)
    assert means(network) == pytest.approx([3 / 2, 1 / 2], rel=1e-6)


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(0.1, "vanishes"), (10, "explodes"), (0.9, "keeps its size"), (0.5, "shrinks"), (2, "grows")],
)
def test_planted_decades_are_found(factor, verdict):
    network = of_chain(1, factor, factor)
    both = 2 * log10(factor)
    assert network.decades_per_stage == pytest.approx((both / 2,) * 2, abs=1e-6)
    assert (network.change.mean, network.change.median) == pytest.approx((both, both), abs=1e-6)
    assert network.verdict == verdict
    assert f"|g| {verdict}: from stage 3 back to stage 1 its mean changes by {both:+.2f} decades" in network.finding()
    assert network.finding().endswith(f"its median changes by {both:+.2f}.")


def test_scaling_each_stages_last_convolution_shifts_the_decades_by_as_much():
    batches, model = labelled(6), create_model("cifar_resnet20", skip=False, batch_norm=False)
    plain = network_gradients(model, batches)
    with torch.no_grad():
        for stage in model.stages[1:]:
            stage.blocks[-1].branch[-1].weight.mul_(1e-3)  # there is no norm to undo it
    small = network_gradients(model, batches)
    for a, b in zip(plain.decades_per_stage, small.decades_per_stage, strict=True):
        assert b == pytest.approx(a - 3, abs=0.02)
    assert small.verdict == "vanishes"
    assert small.change.mean < -5


def labelled(count, size=8, classes=10, batch=None):
    images, labels = torch.randn(count, 3, size, size), torch.arange(count) % classes
    return list(zip(images.split(batch or count), labels.split(batch or count), strict=True))


def by_autograd(model, batches, points, mode="training"):
    """The gradients at modules' outputs, one batch after the other, by retain_grad and backward, in float64."""
    model = copy.deepcopy(model).train(mode == "training").double()
    kept, found = {}, {point: [] for point in points}

    def keep(name):
        def hook(_, __, output):
            tensor = output[0] if isinstance(output, tuple) else output
            tensor.retain_grad()
            kept[name] = tensor
            rest = tensor.clone()  # what follows may change it in place
            return (rest, *output[1:]) if isinstance(output, tuple) else rest

        return hook

    for point in points:
        model.get_submodule(point).register_forward_hook(keep(point))
    for images, labels in batches:
        F.cross_entropy(model(images.double().requires_grad_()), labels, reduction="sum").backward()
        for point in points:
            found[point].append(kept[point].grad.flatten())
    return {point: torch.cat(values).numpy() for point, values in found.items()}


def doubled(batches):
    return [(images.double(), labels) for images, labels in batches]


def assert_equal_to_numpy(found, gradients):
    """Every statistic, of the absolute values of all gradients in one array; quantiles to half a bin."""
    finite = np.abs(gradients[np.isfinite(gradients)])
    assert (found.count, found.nonfinite) == (len(finite), len(gradients) - len(finite))
    assert found.zeros == (finite == 0).sum()
    assert found.mean == pytest.approx(finite.mean(), rel=1e-9)
    assert found.variance == pytest.approx(finite.var(), rel=1e-8)
    assert found.std == pytest.approx(finite.std(), rel=1e-8)
    assert found.smallest == pytest.approx(finite[finite > 0].min(), rel=1e-6)
    assert found.largest == pytest.approx(finite.max(), rel=1e-9)
    for q in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99):
        assert found.quantile(q) == pytest.approx(np.quantile(finite, q, method="inverted_cdf"), rel=0.012)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("name", ["cifar_resnet20_dia_lstm", "cifar_preresnet20_cbam", "cifar_resnet20"])
def test_equals_a_plain_autograd_loop(name, mode):
    model = create_model(name, skip=False).double()
    batches = doubled(labelled(12, batch=5))
    network = network_gradients(model, batches, per_block=True, mode=mode)
    outputs = (*network.stages, *network.blocks)
    expected = by_autograd(model, batches, [output.module for output in outputs], mode)
    assert [(b.stage, b.block) for b in network.blocks] == [(s, b) for s in (1, 2, 3) for b in (1, 2)]
    for output in outputs:
        assert_equal_to_numpy(output.magnitudes, expected[output.module])


class Rooted(nn.Module):
    """Logits are roots of means of |x|: the gradient is zero where x is, and infinite where the whole mean is."""

    def __init__(self):
        super().__init__()
        self.point = nn.Identity()

    def forward(self, x):
        return self.point(x * 1).abs().mean((2, 3)).sqrt()


def test_zeros_and_values_that_are_not_finite_equal_numpys():
    images = torch.randn(7, 3, 4, 4, dtype=torch.float64)
    images[0, 1], images[2:4, :, 0] = 0.0, 0.0
    batches = list(zip(images.split(3), (torch.arange(7) % 3).split(3), strict=True))
    (stage,) = network_gradients(Rooted(), batches, points="point").stages
    expected = by_autograd(Rooted(), batches, ["point"])["point"]
    assert stage.magnitudes.nonfinite == 16
    assert stage.magnitudes.zeros == 2 * 3 * 4
    assert_equal_to_numpy(stage.magnitudes, expected)


def test_in_evaluation_mode_it_does_not_matter_how_images_are_put_into_batches():
    body = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6))
    model = nn.Sequential(*body, nn.Tanh(), nn.Flatten(), nn.LazyLinear(10)).double()
    model(torch.randn(16, 3, 8, 8, dtype=torch.float64))  # so that batch norms have statistics of their own
    whole, points = doubled(labelled(130)), ["0", "4"]
    expected = by_autograd(model, whole, points, "evaluation")
    for size in (64, 65, 128, 1):
        batches = list(zip(*(part.split(size) for part in whole[0]), strict=True))
        network = network_gradients(model, batches, points=points, mode="evaluation")
        for stage in network.stages:
            assert_equal_to_numpy(stage.magnitudes, expected[stage.module])
    assert "evaluation mode (each image's own), batches of 1" in network.conditions


def test_in_training_mode_batch_norm_couples_a_batch_and_its_size_is_said():
    model, whole = create_model("cifar_resnet11").double(), doubled(labelled(12))
    one, two = (
        network_gradients(model, list(zip(*(part.split(size) for part in whole[0]), strict=True))) for size in (12, 8)
    )
    assert abs(one.stages[0].magnitudes.mean / two.stages[0].magnitudes.mean - 1) > 1e-6
    assert 0.5 < one.stages[0].magnitudes.mean / two.stages[0].magnitudes.mean < 2  # no factor of the batch size
    assert one.conditions == "the cross-entropy summed over a batch; 12 images, training mode, batches of 12"
    assert two.conditions.endswith("training mode, batches of 8 and 4")
    with pytest.raises(AnalysisInputError, match="'eval' given; accepted: training, evaluation"):
        unwrap(network_gradients)(model, whole, mode="eval")


def test_autocast_around_it_changes_nothing():
    model, batches = create_model("cifar_resnet11"), labelled(4)
    expected = means(network_gradients(model, batches))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert means(network_gradients(model, batches)) == expected


class InPlace(nn.Module):
    """y = x passes the point; then it becomes 3y, and that relu(3y), in place."""

    def __init__(self):
        super().__init__()
        self.point = nn.Identity()

    def forward(self, x):
        y = self.point(x * 1)
        y *= 3
        return torch.relu_(y).flatten(1)


def test_a_later_change_in_place_does_not_hide_what_came_before_it():
    """The logits are (3, 0) or (0, 3), so it is ±1/(1 + e³) at them; three times that at y, but zero where y < 0."""
    images = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])[:, :, None, None]
    network = network_gradients(InPlace(), [(images, torch.tensor([0, 1]))], points="point")
    (stage,) = network.stages
    wrong = 2 * 3 / (1 + np.e**3)
    assert (stage.magnitudes.count, stage.magnitudes.zeros) == (4, 2)
    assert stage.magnitudes.largest == pytest.approx(wrong / 2, rel=1e-6)
    assert stage.magnitudes.mean == pytest.approx(wrong / 4, rel=1e-6)
    assert stage.output_rms == pytest.approx(1.0)


def test_a_rescaled_output_changes_the_gradient_but_not_its_product_with_the_output():
    """Before a batch norm, a factor of 1/4 makes the gradient at its output 4 times as large, and says nothing."""
    torch.manual_seed(0)
    images = labelled(8, classes=2)

    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.scale, self.norm, self.head = Factor(factor), nn.BatchNorm2d(3, eps=1e-12), nn.Linear(3, 2)
            nn.init.constant_(self.head.weight, 0.5)
            nn.init.eye_(self.head.weight)
            nn.init.zeros_(self.head.bias)

        def forward(self, x):
            return self.head(self.norm(self.scale(x)).square().mean((2, 3)))

    one, quarter = (network_gradients(Scaled(f), images, points="scale").stages[0] for f in (1.0, 0.25))
    assert quarter.magnitudes.mean == pytest.approx(4 * one.magnitudes.mean, rel=1e-4)
    assert quarter.relative == pytest.approx(one.relative, rel=1e-4)


def test_nan_weights_are_counted_and_make_no_number():
    model = create_model("cifar_resnet20")
    with torch.no_grad():
        model.stages[1].blocks[0].branch[0].weight[0] = float("nan")
    network = network_gradients(model, labelled(4))
    for stage in network.stages:
        assert stage.magnitudes.nonfinite == 4 * np.prod(stage.shape)
        assert (stage.magnitudes.count, stage.magnitudes.mean) == (0, None)
    assert network.verdict == "is not finite"
    assert "the gradient is not finite (16,384 of 16,384 values at stage 1" in network.finding()
    document = GradientResult((network,)).to_dict()
    json.dumps(document, allow_nan=False)
    assert (document["models"][0]["loss"], document["models"][0]["decades"]) == (None, None)
    assert document["over_seeds"][0]["verdict"] == "is not finite"
    assert document["models"][0]["stages"][0]["quantiles"]["0.5"] is None
    assert document["models"][0]["stages"][0]["histogram"]["counts"] == []


def test_a_gradient_that_stops_is_zero_and_is_said():
    network = of_chain(1, 0, 1)
    assert [stage.magnitudes.zeros for stage in network.stages] == [8, 0, 0]
    assert network.decades_per_stage == (None, pytest.approx(0))
    assert network.finding() == "network: the gradient vanishes: it is exactly zero at stage 1."


def test_one_stage_has_no_way():
    assert "there is one stage" in of_chain(3).finding()


class Untidy(nn.Module):
    """Has all that training changes: batch norm, dropout, a buffer that is replaced, and one that is not saved."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 10)
        self.register_buffer("runs", torch.zeros(1))
        self.register_buffer("passed", torch.zeros(1), persistent=False)

    def forward(self, x):
        if self.training:
            self.runs = self.runs + 1
            self.passed += 1
        return self.head(self.dropout(self.features(x)).mean((2, 3)))


def state(model):
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "passed": model.passed.clone(),
        "buffers": [id(buffer) for buffer in model.buffers()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "random": torch.get_rng_state(),
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(fails):
    model = Untidy()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    model.features.eval()
    model.head.bias.requires_grad_(False)
    good, bad = labelled(4, batch=2), (torch.randn(2, 3, 8, 8), torch.tensor([0, 10]))
    before = state(model)
    if fails:
        with pytest.raises(AnalysisInputError, match="label 10 is beyond the network's 10 classes"):
            network_gradients(model, [*good, bad])
    else:
        network_gradients(model, good)
    assert same(before, state(model))
    assert not same(before, {**before, "modes": []})


def test_it_runs_in_training_mode_also_where_the_caller_has_no_gradients():
    model = create_model("cifar_resnet20").eval()
    batches = labelled(6)
    expected = by_autograd(model, batches, ["stages.0"])["stages.0"]
    with torch.no_grad():
        found = network_gradients(model, batches).stages[0]
    assert found.magnitudes.mean == pytest.approx(np.abs(expected).mean(), rel=1e-4)


def test_frozen_weights_have_the_same_gradients_and_the_seed_decides_dropout():
    model, batches = Untidy(), labelled(6)
    first, again, other = (means(network_gradients(model, batches, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert means(network_gradients(model.requires_grad_(False), batches, seed=1)) == first


def test_activation_checkpointing_does_not_count_twice():
    model, batches = create_model("cifar_resnet20"), labelled(4)
    plain = network_gradients(model, batches)
    stage = model.stages[1]
    stage.forward = lambda x, inner=stage.forward: checkpoint(inner, x, use_reentrant=False)
    again = network_gradients(model, batches)
    assert means(again) == pytest.approx(means(plain), rel=1e-5)
    assert again.stages[1].magnitudes.count == plain.stages[1].magnitudes.count


class Shared(nn.Module):
    """Calls one Factor of 3 twice."""

    def __init__(self):
        super().__init__()
        self.factor = Factor(3)

    def forward(self, x):
        return self.factor(self.factor(x)).flatten(1)


def test_each_call_of_a_shared_module_has_its_own_gradient():
    network = network_gradients(Shared(), zeros(4), points="factor")
    assert [(stage.module, stage.call) for stage in network.stages] == [("factor", 0), ("factor", 1)]
    assert means(network) == pytest.approx([3 / 2, 1 / 2], rel=1e-6)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "there are no images to analyze"),
        ([torch.zeros(2, 3, 8, 8)], "labels are needed, since"),
        ([(torch.zeros(2, 3, 8, 8), None)], "labels are needed, since"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([-1, -1]))], "a label is -1; labels are needed"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([0]))], r"labels of \(1,\) for 2 images; labels are needed"),
        ([(torch.zeros(0, 3, 8, 8), torch.zeros(0).long())], "a batch without images"),
        ([(torch.zeros(1, 3, 8, 8), torch.tensor([0]))], "a batch of one image has no statistics for batch norm"),
    ],
)
def test_batches_that_cannot_be_used(batches, message):
    with pytest.raises(AnalysisInputError, match=message):
        network_gradients(create_model("cifar_resnet20"), batches)


class Policy(nn.Module):
    """Gives its input a name."""

    def forward(self, x):
        return {"policy": x, "value": x[:, :1]}


class Aside(nn.Module):
    """Has a part whose result is thrown away, and gives what `answer` makes of the logits."""

    def __init__(self, answer):
        super().__init__()
        self.aside, self.head, self.answer = nn.Conv2d(3, 4, 1), nn.Linear(3, 2), answer

    def forward(self, x):
        self.aside(x)
        return self.answer(self.head(x.mean((2, 3))))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda logits: logits, r"no gradient came back to the output of aside \(call 0\)"),
        (lambda logits: logits.detach(), "no gradient came back to the output of aside"),
        (lambda logits: {"policy": logits, "value": logits[:, 0]}, r"a dict of policy: \(4, 2\), value: \(4,\); class"),
        (lambda logits: logits[0], "it gives 2 rows of logits for 4 images"),
    ],
)
def test_outputs_that_cannot_be_used(answer, message):
    with pytest.raises(AnalysisInputError, match=message):
        network_gradients(Aside(answer), labelled(4, classes=2), points="aside")


@pytest.mark.parametrize(
    "answer", [lambda z: {"out": z, "features": z[..., None]}, lambda z: (z, [z]), lambda z: {"logits": z, "aux": z}]
)
def test_logits_are_found_in_what_holds_them(answer):
    batch, network = labelled(4, classes=2), Aside(answer)
    found = network_gradients(network, batch, points="head").loss
    network.answer = lambda z: z
    assert found == network_gradients(network, batch, points="head").loss


def test_a_loss_of_ones_own_is_of_any_output_and_any_labels():
    def twice(output, labels):
        return 2 * F.cross_entropy(output["policy"], labels["classes"], reduction="none")

    batches = zeros(2, 2)
    mine = [{"x": images, "y": {"classes": labels}} for images, labels in batches]
    chain = nn.Sequential(Chain(2, 3), Policy())
    network = network_gradients(chain, mine, points="0.factors.*", loss=twice)
    assert network.loss_name == "loss twice"
    assert network.loss == pytest.approx(2 * log(2), rel=1e-6)
    assert means(network) == pytest.approx([3.0, 1.0], rel=1e-6)
    assert "the loss twice summed over a batch" in network.conditions
    alone = network_gradients(Chain(2, 3), [torch.zeros(4, 2, 1, 1)], points="factors.*", loss=lambda z, _: z.sum())
    assert (alone.loss_name, means(alone)) == ("given loss", [3.0, 1.0])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss(), "CrossEntropyLoss gives the mean over a batch"),
        (lambda output, labels: 1.0, "gives a float; give a tensor"),
    ],
)
def test_losses_that_cannot_be_used(loss, message):
    with pytest.raises(AnalysisInputError, match=message):
        network_gradients(Chain(2, 3), zeros(4), points="factors.*", loss=loss)


def test_several_networks_and_their_json_document():
    models = {"plain": create_model("cifar_resnet20"), "lstm": create_model("cifar_resnet20_dia_lstm")}
    result = measure_gradients(models, labelled(4), per_block=True)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["schema"] == "dia.gradients/1"
    assert [model["name"] for model in document["models"]] == ["plain", "lstm"]
    model = document["models"][1]
    assert [stage["stage"] for stage in model["stages"]] == [1, 2, 3]
    assert [(block["stage"], block["block"]) for block in model["blocks"]][:3] == [(1, 1), (1, 2), (2, 1)]
    stage = model["stages"][0]
    assert {"mean_abs", "std_abs", "quantiles", "zeros", "nonfinite", "variance"} <= stage.keys()
    assert stage["variance"] == pytest.approx(stage["std_abs"] ** 2)
    assert sum(stage["histogram"]["counts"]) == stage["values"] - stage["zeros"]
    assert model["provenance"]["versions"]["torch"] == torch.__version__
    lines = result.summary().splitlines()
    assert len(lines) == 2 + 1 + 6 + 1 + 2
    assert lines[0].endswith("of the cross-entropy summed over a batch; 4 images, training mode, batches of 4.")
    assert (model["mode"], model["batch_size"], model["batch_sizes"]) == ("training", 4, [4])


def test_a_saved_result_is_complete_and_labelled(tmp_path):
    result = measure_gradients(create_model("cifar_resnet20"), labelled(4))
    folder = result.save(tmp_path / "out")
    assert json.loads((folder / "gradients.json").read_text()) == json.loads(json.dumps(result.to_dict()))
    with xr.open_dataset(folder / "network1.nc") as arrays:
        assert arrays["output"].values.tolist() == [f"stages.{i}#0" for i in range(3)]
        found = result.networks[0].stages[0].magnitudes
        assert float(arrays["histogram"][0].sum()) == found.count - found.zeros
        assert float(arrays["mean_abs"][0]) == pytest.approx(found.mean)
    with pytest.raises(AnalysisInputError, match="exists; choose another folder"):
        result.save(folder)


def drawn(*factors, name="chain"):
    """Chains of three factors; the number of a chain is its seed."""
    networks = [
        network_gradients(Chain(1, f, g), zeros(4), points="factors.*", name=name, weights_seed=seed)
        for seed, (f, g) in enumerate(factors)
    ]
    return GradientResult(tuple(networks))


def test_several_seeds_are_one_row_of_medians_with_their_extent():
    (group,) = drawn((1, 10), (1, 20), (1, 40)).over_seeds
    assert group.label == "chain (3 seeds)"
    assert [stage.mean for stage in group.stages] == pytest.approx([10, 10, 0.5])  # 20 times 1/2
    assert (group.stages[0].mean_lowest, group.stages[0].mean_highest) == pytest.approx((5, 20))
    lines = drawn((1, 10), (1, 20), (1, 40)).summary().splitlines()
    assert len(lines) == 2 + 1 + 3 + 1 + 1
    assert lines[0].endswith("of several seeds the median.")


def test_the_word_over_seeds_rests_on_the_interval():
    """Decades 1, 1.3, 1.6: mean 1.3, standard deviation 0.301, t of 2 degrees 4.303: 1.3 ± 0.748, so it grows."""
    (group,) = drawn((1, 10), (1, 20), (1, 40)).over_seeds
    low, high = group.to_dict()["decades_interval"]
    assert (low, high) == pytest.approx((1.3010 - 0.7478, 1.3010 + 0.7478), abs=1e-3)
    assert group.verdict == "grows"
    assert (
        "chain (3 seeds): |g| grows: from stage 3 back to stage 1 its mean changes by +1.30 decades" in group.finding()
    )
    assert drawn((1, 20), (1, 21), (1, 22)).over_seeds[0].verdict == "explodes"
    assert drawn((1, 1), (1, 1.1), (1, 1.2)).over_seeds[0].verdict == "keeps its size"
    assert drawn((1, 0.1), (1, 10), (1, 1)).over_seeds[0].verdict == "inconclusive"


def test_two_seeds_have_no_interval_and_one_checkpoint_speaks_for_itself():
    (two,) = drawn((1, 20), (1, 21)).over_seeds
    assert two.verdict == "inconclusive"
    assert "+1.30 and +1.32 decades" in two.finding()
    assert two.finding().endswith("An interval takes 3 seeds.")
    (one,) = drawn((1, 20)).over_seeds
    assert (one.label, one.verdict) == ("chain", "explodes")


@pytest.mark.parametrize(
    ("mean", "median", "expected"),
    [
        (-0.9, log10(5e-9 / 2e-4), "shrinks"),  # by a factor of 8, but the median by 40,000
        (-0.29, 0.29, "keeps its size"),
        (-0.31, -0.31, "shrinks"),
        (-1.0, -1.0, "vanishes"),
        (1.0, float("inf"), "explodes"),
        (0.5, 1.5, "grows"),
        (-0.2, -4.0, "inconclusive"),
        (-2.0, 2.0, "inconclusive"),
        (-2.0, None, "vanishes"),
        (None, None, "inconclusive"),
    ],
)
def test_mean_and_median_must_agree(mean, median, expected):
    spans = (None if change is None else (change, change) for change in (mean, median))
    assert word(*spans) == expected


def test_a_median_that_is_zero_is_said():
    (group,) = drawn((1, 0), (1, 0), (1, 0)).over_seeds
    assert group.finding() == "chain: the gradient vanishes: it is exactly zero at stage 1, 2."
    assert decades(0.0, 1.0) == -float("inf")
    assert decades(1.0, 0.0) == float("inf")
    assert decades(0.0, 0.0) is None
    assert decades_text(-float("inf")) == "-∞ (to exactly zero)"


def test_a_network_that_fails_in_training_only_says_so():
    class Failing(nn.Sequential):
        def forward(self, x):
            if self.training and torch.is_grad_enabled():
                raise RuntimeError("Output size is\n too small")
            return super().forward(x)

    network = Failing(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))
    batch = torch.randn(4, 3, 8, 8), torch.arange(4) % 2
    with pytest.raises(AnalysisInputError, match="it fails in training mode on these images: Output size is too small"):
        measure_gradients(network, batch)
    measure_gradients(network, batch, mode="evaluation")
