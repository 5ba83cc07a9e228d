"""One attention module in place of several: the mean of their weights, really shared, and the numbers in the report."""

import copy

import pytest
import timm
import torch
import torchvision
from timm.layers import SEModule
from torch import nn

from dia_analysis import capture
from dia_models import Checkpoint, ModelInputError, attach, create_model, load, save_checkpoint, share
from dia_models.attention import attention_names
from dia_models.classification.evaluation import evaluate
from dia_models.data import open_data
from dia_models.surgery.hidden_units import hidden_layers, matched, reorder_units
from tests.support.static import settled

pytestmark = pytest.mark.numeric

INDIVIDUAL = [name for name in attention_names() if f"dia_{name}" in attention_names()]
OPTIONS = {"sge": {"groups": 16}}


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def images(size=16):
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


def individual(name):
    """A network of ours whose weights and statistics, also those of each layer's batch norm, are all different."""
    return settled(create_model(f"cifar_resnet29_{name}", **OPTIONS.get(name, {})))


def make_equal(model):
    """Give every layer of a stage the first one's weights, but leave each its batch norm."""
    with torch.no_grad():
        for stage in model.stages:
            for layer in stage.attention:
                for (name, ours), first in zip(layer.named_parameters(), stage.attention[0].parameters(), strict=True):
                    if "norms" not in name:
                        ours.copy_(first)


@pytest.mark.parametrize("name", INDIVIDUAL)
def test_our_network_becomes_the_one_that_shares(name):
    model, shared = individual(name), create_model(f"cifar_resnet29_dia_{name}", **OPTIONS.get(name, {}))
    before = count(model)
    report = share(model)
    assert model.spec == shared.spec
    assert shapes(model) == shapes(shared)
    assert [len(stage.modules) for stage in report.stages] == [3, 3, 3]
    assert (report.parameters_before, report.parameters_after) == (before, count(shared))
    assert report.saved == before - count(shared) == sum(stage.saved for stage in report.stages)
    shared.load_state_dict(model.state_dict())
    assert torch.equal(shared.eval()(images()), model(images()))


@pytest.mark.parametrize("name", INDIVIDUAL)
def test_sharing_equal_modules_changes_no_output(name):
    model = individual(name)
    make_equal(model)
    before = model(images())
    report = share(model)
    assert [stage.deviation for stage in report.stages] == [pytest.approx(0, abs=1e-12)] * 3
    torch.testing.assert_close(model(images()), before)


def test_the_shared_module_has_the_mean_of_the_weights():
    model = individual("se")
    expected = torch.stack([layer.excitation[2].bias for layer in model.stages[1].attention]).mean(0)
    share(model)
    torch.testing.assert_close(model.stages[1].attention.excitation[2].bias, expected)


class Gated(nn.Module):
    """Features scaled by sigmoid(weight times mean)."""

    def __init__(self, weight):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(weight))
        self.gate = nn.Sigmoid()

    def forward(self, x):
        return x * self.gate(self.scale * x.mean((2, 3)))[..., None, None]


class Net(nn.Module):
    """Three gates at one feature size, one at half of it, and the first again."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.first, self.second = Gated([1.0, 2.0]), Gated([3.0, 2.0])
        self.third, self.small = Gated([5.0, 2.0]), Gated([7.0, 7.0])
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        return self.small(self.pool(self.third(self.second(self.first(self.conv(x))))))


def test_the_report_by_hand():
    """Weights (1, 2), (3, 2), (5, 2): the mean is (3, 2), the largest deviation 2 of length √13."""
    model = Net()
    report = share(model)
    (stage,) = report.stages
    assert stage.modules == ("first", "second", "third")
    assert model.third.scale.tolist() == [3.0, 2.0]
    assert model.small.scale.tolist() == [7.0, 7.0]
    assert (stage.parameters_before, stage.parameters_after, stage.saved) == (6, 2, 4)
    assert stage.deviation == pytest.approx(2 / 13**0.5)
    assert (report.parameters_before, report.parameters_after) == (8 + 8, 8 + 4)
    assert report.summary().splitlines() == [
        "stage  modules  before  after  saved  deviation  first module",
        "    1        3       6      2      4       0.55         first",
        "network: 16 parameters, now 12 (25.0% saved)",
    ]


def attentive(layer):
    return timm.create_model("resnet18", block_args={"attn_layer": layer})


FOREIGN = {  # stages of at least two equal modules
    "seresnet50": (lambda: timm.create_model("seresnet50"), [3, 4, 6, 3]),
    "efficient channel attention": (lambda: attentive("eca"), [2, 2, 2, 2]),
    "timm efficientnet": (lambda: timm.create_model("efficientnet_b0"), [3, 2, 4]),
    "torchvision efficientnet": (torchvision.models.efficientnet_b0, [3, 2, 4]),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_networks_from_elsewhere_share_one_object(name):
    build, sizes = FOREIGN[name]
    model = build().eval()
    names, before = list(model.state_dict()), count(model)
    report = share(model)
    assert [len(stage.modules) for stage in report.stages] == sizes
    for stage in report.stages:
        assert len({id(model.get_submodule(module)) for module in stage.modules}) == 1
    assert count(model) == report.parameters_after == before - report.saved
    assert list(model.state_dict()) == names
    with capture(model) as records:
        model(images(64))
    calls = {stage.modules[0]: len(stage.modules) for stage in report.stages}
    for module, layers in calls.items():
        found = [call for point, call in records if point.startswith(f"{module}.")]
        assert found == list(range(layers))


def test_shared_weights_survive_a_file(tmp_path):
    model, twin = Net(), Net()
    with torch.no_grad():
        model.first.scale += 1.0
    share(model)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    share(twin)
    twin.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(twin(images()), model(images()))
    assert count(twin) == count(model) == 12


def test_attached_individual_modules_become_shared_ones():
    model = attach(torchvision.models.resnet18(), "srm").eval()
    report = share(model)
    assert report.stages[0].modules == ("attention.0.0", "attention.0.1")
    assert shapes(model) == shapes(attach(torchvision.models.resnet18(), "dia_srm"))
    with capture(model) as records:
        model(images(64))  # smaller ones leave one position in the last stage, which has no standard deviation
    assert list(records) == [(f"attention.{stage}.gate", call) for stage in range(4) for call in range(2)]


def test_norms_on_hidden_units_go_with_them():
    module = SEModule(8, rd_channels=4, norm_layer=nn.BatchNorm2d).eval()
    with torch.no_grad():
        for tensor in (module.bn.weight, module.bn.bias, module.bn.running_mean, module.bn.running_var):
            tensor.uniform_(0.5, 1.5)
    other, features = copy.deepcopy(module), torch.randn(2, 8, 3, 3)
    shuffled(other)
    torch.testing.assert_close(other(features), module(features))
    again = matched([module, other])[1]
    assert all(map(torch.equal, again.parameters(), module.parameters()))


def shuffled(module):
    """The same function, with its hidden units in another order."""
    (layer,) = hidden_layers(module)
    units = module.get_submodule(layer.read_by).weight.shape[1]
    reorder_units(module, layer, torch.arange(units).roll(1))


UNITS = {
    "linear layers": lambda: Own(8),
    "convolutions": lambda: SEModule(8, rd_channels=4),
}


@pytest.mark.parametrize("kind", UNITS)
def test_hidden_units_in_another_order_share_to_the_same_function(kind):
    first = UNITS[kind]().eval()
    second = copy.deepcopy(first)
    shuffled(second)
    features = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(second(features), first(features))
    assert not any(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True) if a.ndim > 1
    )
    model = nn.Sequential(nn.Conv2d(3, 8, 1), first, second).eval()
    before = model(images())
    report = share(model)
    assert model[1] is model[2]
    assert report.stages[0].deviation == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(model(images()), before)


def test_our_hidden_units_too():
    model = individual("se")
    make_equal(model)
    for layer in model.stages[0].attention[1:]:
        shuffled(layer)
    before = model(images())
    share(model)
    torch.testing.assert_close(model(images()), before)


@pytest.mark.parametrize("name", ["se", "srm"])
def test_a_fitted_module_is_nearer_to_what_the_modules_did(name):
    model, seen = individual(name), torch.randn(8, 3, 8, 8)
    averaged, fitted = copy.deepcopy(model), copy.deepcopy(model)
    share(averaged)
    report = share(fitted, fit_batches=[seen] * 4)
    assert shapes(fitted) == shapes(averaged)
    assert all(0 <= stage.fit_error < 1 for stage in report.stages)

    @torch.no_grad
    def error(network):  # of the first stage, whose inputs are the same
        return float((network.stages[0](network.stem(seen)) - model.stages[0](model.stem(seen))).square().mean())

    assert error(fitted) < error(averaged)


class Own(nn.Module):
    """Someone's squeeze and excitation."""

    def __init__(self, channels=4):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, 2), nn.ReLU(), nn.Linear(2, channels), nn.Sigmoid())

    def forward(self, x):
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class Owner(nn.Module):
    """Two of them, one of which goes by two names."""

    def __init__(self):
        super().__init__()
        self.conv, self.blocks = nn.Conv2d(3, 4, 1), nn.ModuleList([Own(), Own()])
        self.alias = self.blocks[1]

    def forward(self, x):
        x = self.conv(x)
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("options", [{}, {"modules": "blocks.?"}])
def test_modules_of_ones_own_are_shared(options):
    model = Owner()
    share(model, **options)
    assert model.blocks[0] is model.blocks[1] is model.alias


def test_gates_that_no_module_makes_alone_are_not_shared():
    class Inline(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.scale = nn.Conv2d(3, 4, 1), nn.Parameter(torch.rand(4, 4))

        def forward(self, x):
            x = self.conv(x)
            return x * (x.mean((2, 3)) @ self.scale).sigmoid()[..., None, None]

    with pytest.raises(ModelInputError, match="no module of Inline makes :gate and nothing else"):
        share(Inline())


def test_a_shared_checkpoint_saves_loads_and_costs_accuracy(tmp_path):
    """A trained network loses by sharing without training, but is far from guessing; the file remembers both."""
    checkpoint, source = Checkpoint.read("digits-resnet56-se"), open_data("digits", "test")
    info, model = checkpoint.info, checkpoint.build()

    def accuracy(network):
        batches = source.batches(range(0, 360, 3), 120, info.preprocessing.size, 1)
        return evaluate(network, batches, info.preprocessing, 10, torch.device("cpu")).accuracy

    before = accuracy(model)
    share(model)
    after = accuracy(model)
    assert 0.3 < after <= before
    save_checkpoint(tmp_path / "shared.safetensors", model, info.model_copy(update={"model": model.spec}))
    again = load(tmp_path / "shared.safetensors")
    assert again.spec.name == "cifar_resnet56_dia_se"
    assert accuracy(again) == after


REFUSED = {
    "no attention": (lambda: create_model("cifar_resnet20"), {}, "multiplies its features by no gate"),
    "shared already": (lambda: create_model("cifar_resnet20_dia_se"), {}, "no two attention modules .* nothing to"),
    "a batch norm": (
        lambda: attentive("cbam"),
        {},
        "layer1.0.se.spatial holds a batch norm, which layers must not share",
    ),
    "no such module": (Net, {"modules": "layer*"}, "no module of Net matches 'layer\\*'"),
    "another image": (Net, {"images": torch.zeros(1, 1, 8, 8)}, "fails on images of 1x1x8x8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_shared_is_refused(case):
    make, options, message = REFUSED[case]
    model = make()
    before = shapes(model)
    with pytest.raises(ModelInputError, match=message):
        share(model, **options)
    assert shapes(model) == before


def test_parts_of_cbam_are_shared_by_name():
    model = attentive("cbam")
    report = share(model, modules="*.se.channel")
    assert [len(stage.modules) for stage in report.stages] == [2, 2, 2, 2]
    assert model.layer1[0].se.channel is model.layer1[1].se.channel


def test_sharing_twice_is_refused():
    model = Net()
    share(model)
    with pytest.raises(ModelInputError, match="there is nothing to share"):
        share(model)
