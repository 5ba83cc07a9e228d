"""Gradients at stages' outputs: in closed form, against a plain autograd loop, planted, degenerate, side effects."""

import copy
import json
from math import log10

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn
from torch.utils.checkpoint import checkpoint

from dia_analysis import AnalysisInputError, GradientResult, measure_gradients, network_gradients
from dia_models import create_model


class Factor(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x):
        return x * self.factor


class Chain(nn.Module):
    """Factors, one after the other; the two channels are the logits.

    For images of zeros both classes have probability 1/2, so the gradient at the logits is ±1/2 by image, divided by
    the batch size, and at the output of a factor it is that times the factors that follow.
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
    """A batch of 4 makes it 1/8 at the end; the factors after the third, second and first output are 1, 5, 15."""
    network = of_chain(2, 3, 5)
    assert means(network) == pytest.approx([15 / 8, 5 / 8, 1 / 8], rel=1e-6)
    assert [stage.module for stage in network.stages] == ["factors.0", "factors.1", "factors.2"]
    for stage in network.stages:
        found = stage.magnitudes
        assert (found.count, found.zeros, found.nonfinite) == (8, 0, 0)
        assert found.variance == pytest.approx(0, abs=1e-16)
        assert found.quantile(0.5) == pytest.approx(found.mean, rel=1e-7)
    assert network.loss == pytest.approx(np.log(2), rel=1e-6)
    assert (network.images, network.batch_size) == (4, 4)


def test_images_of_a_smaller_batch_weigh_as_much():
    assert means(of_chain(2, 3, batches=zeros(4, 1))) == pytest.approx([3 / 8, 1 / 8], rel=1e-6)


@pytest.mark.parametrize(("factor", "verdict"), [(0.1, "vanishes"), (10, "explodes"), (0.5, "keeps its size")])
def test_planted_decades_are_found(factor, verdict):
    network = of_chain(1, factor, factor)
    assert network.decades_per_stage == pytest.approx((log10(factor),) * 2, abs=1e-6)
    assert network.decades == pytest.approx(2 * log10(factor), abs=1e-6)
    assert network.verdict == verdict
    assert f"the gradient {verdict}: {network.decades:+.2f} decades from stage 3 back to stage 1" in network.finding()


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
    assert small.decades < -5


def labelled(count, size=8, classes=10, batch=None):
    images, labels = torch.randn(count, 3, size, size), torch.arange(count) % classes
    return list(zip(images.split(batch or count), labels.split(batch or count), strict=True))


def by_autograd(model, batches, points):
    """The gradients at modules' outputs, one batch after the other, by retain_grad and backward on a copy."""
    model = copy.deepcopy(model).train()
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
        F.cross_entropy(model(images), labels).backward()
        for point in points:
            found[point].append(kept[point].grad.flatten().double())
    return {point: torch.cat(values).numpy() for point, values in found.items()}


@pytest.mark.parametrize("name", ["cifar_resnet20_dia_lstm", "cifar_preresnet20_cbam", "cifar_resnet20"])
def test_equals_a_plain_autograd_loop(name):
    model = create_model(name, skip=False)
    batches = labelled(12, batch=6)
    network = network_gradients(model, batches, per_block=True)
    outputs = (*network.stages, *network.blocks)
    expected = by_autograd(model, batches, [output.module for output in outputs])
    assert [(b.stage, b.block) for b in network.blocks] == [(s, b) for s in (1, 2, 3) for b in (1, 2)]
    for output in outputs:
        values = np.abs(expected[output.module])
        found = output.magnitudes
        assert found.count == values.size
        assert found.zeros == (values == 0).sum()
        assert found.mean == pytest.approx(values.mean(), rel=1e-4)
        assert found.std == pytest.approx(values.std(), rel=1e-4)
        for q in (0.05, 0.5, 0.95):
            assert found.quantile(q) == pytest.approx(np.quantile(values, q, method="inverted_cdf"), rel=0.015)


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
    wrong = 3 / (1 + np.e**3)
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
    assert means(network) == pytest.approx([3 / 8, 1 / 8], rel=1e-6)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "there are no images to analyse"),
        ([torch.zeros(2, 3, 8, 8)], "labels are needed: give"),
        ([(torch.zeros(2, 3, 8, 8), None)], "labels are needed: give"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([-1, -1]))], "labels are needed: one class number"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([0]))], "labels are needed: one class number"),
        ([(torch.zeros(0, 3, 8, 8), torch.zeros(0).long())], "a batch without images"),
        ([(torch.zeros(1, 3, 8, 8), torch.tensor([0]))], "a batch of one image has no statistics for batch norm"),
    ],
)
def test_batches_that_cannot_be_used(batches, message):
    with pytest.raises(AnalysisInputError, match=message):
        network_gradients(create_model("cifar_resnet20"), batches)


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
        (lambda logits: {"out": logits}, "the network gives a dict; expected logits"),
        (lambda logits: logits[0], r"the network gives a tensor of \(2,\); expected logits"),
    ],
)
def test_outputs_that_cannot_be_used(answer, message):
    with pytest.raises(AnalysisInputError, match=message):
        network_gradients(Aside(answer), labelled(4, classes=2), points="aside")


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
    assert len(result.summary().splitlines()) == 1 + 6 + 1 + 2
    assert result._repr_html_().startswith("<pre>network")


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
