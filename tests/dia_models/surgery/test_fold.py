"""Constant gates multiplied into the layers beside them: the same outputs as with the gates' means, fewer modules."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

from dia_models import ModelInputError, attach, build_model, create_model, fold_attention
from tests.support.static import batches, settled, with_means

pytestmark = pytest.mark.numeric
CHANNELS = 6


class Excitation(nn.Module):
    """A gate of channels, as many networks have it: what `act` gives is multiplied onto the features."""

    def __init__(self, act, channels=CHANNELS):
        super().__init__()
        self.fc, self.act = nn.Linear(channels, channels), act

    def forward(self, x):
        return x * self.act(self.fc(x.mean((2, 3))))[:, :, None, None]


class Net(nn.Module):
    """A convolution, some layers, a gate, some layers, a classifier."""

    def __init__(self, before, gate, after, channels=CHANNELS):
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.curve = nn.SiLU()
        self.before, self.se, self.after = nn.Sequential(*before), gate, nn.Sequential(*after)
        self.head = nn.Linear(channels, 4)

    def forward(self, x):
        x = self.after(self.se(self.before(self.curve(self.stem(x)))))
        return self.head(nn.functional.silu(x).mean((2, 3)))


def assert_equal_to(expected, given):
    """To 1e-5 of the largest logit."""
    assert float((given.detach() - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def folded(model, given=None, **how):
    """The network folded with the means of these images, whatever becomes of its accuracy."""
    given = given or batches()
    return fold_attention(model, given, given, max_accuracy_drop=1.0, **how)


def conv(groups=1, **how):
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=groups, **how)


BN = lambda **how: nn.BatchNorm2d(CHANNELS, **how)  # noqa: E731
PAIRS = {
    "conv, gate": ([conv()], [], "before.0"),
    "conv by group, gate": ([conv(3, bias=False)], [], "before.0"),
    "conv, BN, gate": ([conv(), BN()], [], "before.1"),
    "BN without affine, gate": ([conv(), BN(affine=False)], [], "before.1"),
    "gate, conv": ([nn.SiLU()], [conv()], "after.0"),
    "gate, conv by group": ([nn.Hardswish()], [conv(2)], "after.0"),
    "gate, conv by channel": ([nn.GELU()], [conv(CHANNELS, bias=False)], "after.0"),
    "gate, conv that pads by reflection": ([nn.GELU()], [conv(padding_mode="reflect")], "after.0"),
    "gate, BN": ([nn.SiLU()], [BN()], "after.0"),
    "gate, BN without affine": ([nn.SiLU()], [BN(affine=False)], "after.0"),
    "BN, ReLU, gate": ([BN(), nn.ReLU(inplace=True)], [], "before.0"),
    "BN, leaky ReLU, gate": ([BN(), nn.LeakyReLU(0.1)], [], "before.0"),
    "conv, max-pool, gate": ([conv(), nn.MaxPool2d(2)], [], "before.0"),
    "conv, mean-pool, gate": ([conv(), nn.AvgPool2d(2)], [], "before.0"),
    "gate, ReLU, conv": ([nn.SiLU()], [nn.ReLU(), conv()], "after.1"),
    "gate, mean-pool, BN": ([nn.SiLU()], [nn.AvgPool2d(2), BN()], "after.1"),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_gate_goes_into_the_layer_beside_it(pair):
    before, after, into = PAIRS[pair]
    model = settled(Net(copy.deepcopy(before), Excitation(nn.Sigmoid()), copy.deepcopy(after)))
    images = batches()[0][0]
    with torch.no_grad():
        untouched = model(images)
    expected = with_means(model, ["se.act"], images)
    found = folded(model)
    assert [(fate.outcome, fate.into) for fate in found.fates] == [("removed", into)]
    assert isinstance(found.model.se, nn.Identity)
    assert_equal_to(expected, found.model(images))
    assert found.deviation <= 1e-5
    assert float((expected - untouched).abs().max()) > 1e-4 * float(untouched.abs().max())
    assert torch.equal(model(images), untouched)  # the network is left as it was


def test_a_gate_that_can_be_negative_passes_means_but_no_relu():
    for layer, outcome in ((nn.AvgPool2d(2), "removed"), (nn.ReLU(), "constant"), (nn.MaxPool2d(2), "constant")):
        model = settled(Net([BN(), layer], Excitation(nn.Tanh()), [nn.SiLU()]))
        with torch.no_grad():
            model.se.fc.bias[0] -= 50
        expected = with_means(model, ["se.act"], batches()[0][0])
        found = folded(model)
        assert found.fates[0].outcome == outcome
        assert_equal_to(expected, found.model(batches()[0][0]))


@pytest.mark.parametrize("curve", [nn.SiLU, nn.GELU, nn.Hardswish, nn.ReLU6])
def test_a_gate_between_curves_becomes_a_constant(curve):
    model = settled(Net([BN(), curve()], Excitation(nn.Sigmoid()), [curve(), conv()]))
    expected = with_means(model, ["se.act"], batches()[0][0])
    found = folded(model)
    (fate,) = found.fates
    assert fate.outcome == "constant"
    assert "lies between" in fate.reason
    assert found.network.scale == ["se"]
    assert_equal_to(expected, found.model(batches()[0][0]))


class Tied(Net):
    """The convolution before the gate runs once more, or its weights are another's too."""

    def __init__(self, how):
        super().__init__([conv(bias=False)], Excitation(nn.Sigmoid()), [nn.SiLU()])
        self.how, self.other = how, conv(bias=False)
        if how == "weights":
            self.other.weight = self.before[0].weight
        if how == "module":
            self.other = self.before[0]

    def forward(self, x):
        x = self.curve(self.stem(x))
        if self.how == "features":
            made = self.before(x)
            return self.head((self.se(made) + made).mean((2, 3)))
        again = self.before[0] if self.how == "call" else self.other
        return self.head(self.after(self.se(self.before(nn.functional.silu(again(x))))).mean((2, 3)))


@pytest.mark.parametrize("how", ["weights", "module", "call", "features"])
def test_what_something_else_uses_is_not_changed(how):
    model = settled(Tied(how))
    expected = with_means(model, ["se.act"], batches()[0][0])
    found = folded(model)
    assert found.fates[0].outcome == "constant"
    assert ("used more than once" if how != "features" else "something else takes the features") in found.fates[
        0
    ].reason
    assert_equal_to(expected, found.model(batches()[0][0]))


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight / self.weight.std((1, 2, 3), keepdim=True), self.bias)


def test_weights_that_are_changed_before_use_take_nothing_up():
    model = settled(Net([Standardized(CHANNELS, CHANNELS, 1)], Excitation(nn.Sigmoid()), [nn.SiLU()]))
    expected = with_means(model, ["se.act"], batches()[0][0])
    found = folded(model)
    assert found.fates[0].outcome == "constant"
    assert_equal_to(expected, found.model(batches()[0][0]))


class MadeBeside(nn.Module):
    """The gate comes from a module, the product stands in the network's code."""

    def __init__(self, in_code):
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 3)
        self.in_code = in_code
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.Sigmoid())

    def forward(self, x):
        x = self.conv(x)
        gate = self.fc(x.mean((2, 3))).sigmoid() if self.in_code else self.squeeze(x)
        return self.head((x * gate[:, :, None, None]).mean((2, 3)))


def test_a_product_in_the_networks_code_keeps_a_constant():
    model, images = MadeBeside(False).eval(), batches(classes=3)
    expected = with_means(model, ["squeeze.3"], images[0][0])
    found = folded(model, images)
    assert (found.fates[0].outcome, found.network.gate) == ("constant", ["squeeze"])
    assert "written in the code of the network" in found.fates[0].reason
    assert_equal_to(expected, found.model(images[0][0]))


def test_a_gate_in_the_networks_code_is_left():
    with pytest.raises(ModelInputError, match="no gate can be folded.*written in the code of the network"):
        folded(MadeBeside(True).eval(), batches(classes=3))


class Tokens(nn.Module):
    """Features whose channels are the last axis."""

    def __init__(self, norm, gate_after):
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 4, 2, 2), norm
        self.se, self.mlp, self.head = TokenExcitation(), nn.Linear(4, 4), nn.Linear(4, 3)
        self.gate_after = gate_after

    def forward(self, x):
        x = self.norm(self.embed(x).flatten(2).transpose(1, 2))
        return self.head(nn.functional.gelu(self.mlp(self.se(x))).mean(1))


class TokenExcitation(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.Sigmoid()

    def forward(self, x):
        return x * self.act(self.fc(x.mean(1)))[:, None]


@pytest.mark.parametrize(("norm", "into"), [(nn.LayerNorm(4), "norm"), (nn.Linear(4, 4), "norm"), (nn.GELU(), "mlp")])
def test_gates_of_tokens(norm, into):
    model, images = Tokens(norm, into).eval(), batches(classes=3)
    expected = with_means(model, ["se.act"], images[0][0])
    found = folded(model, images)
    assert (found.fates[0].outcome, found.fates[0].into) == ("removed", into)
    assert_equal_to(expected, found.model(images[0][0]))


def test_half_precision_is_folded_in_full():
    model = settled(Net([conv(), BN()], Excitation(nn.Sigmoid()), [])).bfloat16()
    images = batches(dtype=torch.bfloat16)
    found = folded(model, images)
    weight, mean = model.before[1].weight.double(), with_gate_mean(model, images[0][0])
    assert torch.equal(found.model.before[1].weight, (weight * mean).bfloat16())
    assert found.model.before[1].weight.dtype == torch.bfloat16


def with_gate_mean(model, images):
    gates = []
    hook = model.se.act.register_forward_hook(lambda _, __, out: gates.append(out.double()))
    with torch.no_grad():
        model(images)
    hook.remove()
    return gates[0].mean(0)


ELSEWHERE = {  # what puts the gates out, and the layers that take them up
    "timm": (lambda: timm.create_model("test_efficientnet", num_classes=4), "se.gate", "conv_pwl"),
    "torchvision": (lambda: torchvision.models.mobilenet_v3_small(num_classes=4), "scale_activation", "0"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_networks_from_elsewhere(name):
    build, gate, into = ELSEWHERE[name]
    model, images = settled(build(), 32), batches(size=32)
    gates = [name for name, _ in model.named_modules() if name.endswith(gate)]
    with torch.no_grad():
        untouched = model(images[0][0])
    expected = with_means(model, gates, images[0][0])
    found = folded(model, images)
    assert len(found.fates) == len(gates)
    assert {(fate.outcome, fate.into.rpartition(".")[2]) for fate in found.fates} >= {("removed", into)}
    assert_equal_to(expected, found.model(images[0][0]))
    assert all(isinstance(found.model.get_submodule(name), nn.Identity) for name in found.network.identity)
    assert float((expected - untouched).abs().max()) > 1e-4 * float(untouched.abs().max())


@pytest.mark.parametrize("name", ["se", "dia_srm", "dia_lstm"])
def test_ours_becomes_the_plain_network(name):
    model = settled(create_model(f"cifar_resnet20_{name}", num_classes=4))
    shared = name.startswith("dia_")
    gates = [f"stages.{s}.attention" + ("" if shared else f".{b}") + ".gate" for s in range(3) for b in range(2)]
    images = batches()
    expected = with_means(model, list(dict.fromkeys(gates)), images[0][0])
    found = folded(model)
    assert {fate.outcome for fate in found.fates} == {"removed"}
    assert found.model.spec.name == "cifar_resnet20"
    plain = create_model("cifar_resnet20", num_classes=4).eval()
    plain.load_state_dict(found.model.state_dict())
    assert_equal_to(expected, plain(images[0][0]))


@pytest.mark.parametrize("name", ["cifar_resnet20_asr_se", "cifar_preresnet20_asr_eca"])
def test_the_gate_of_a_learned_vector_is_folded_exactly(name):
    """Whatever the images are: nothing is lost."""
    model, images = settled(create_model(name, num_classes=4)), batches()
    with torch.no_grad():
        expected = model(images[0][0])
    found = fold_attention(model, images, images, images, max_accuracy_drop=0.0)
    assert {fate.outcome for fate in found.fates} == {"removed"}
    assert found.model.spec.name == name.partition("_asr")[0]
    assert_equal_to(expected, found.model(images[0][0]))
    assert torch.equal(found.test, found.test_after)


def test_attached_learned_vectors_are_folded_too():
    plain, images = Residual(), batches()
    names = set(plain.state_dict())
    model = settled(attach(plain, "asr_se", images=images[0][0], reduction=4))
    with torch.no_grad():
        expected = model(images[0][0])
    found = folded(model, images)
    assert set(found.model.state_dict()) == names
    assert_equal_to(expected, found.model(images[0][0]))


@pytest.mark.parametrize(
    ("layers", "outcomes", "word"),
    [
        (["1.2"], ["as it was", "removed"], "1.2"),
        (["1.1"], ["module runs", "as it was"], "1.1"),
        (["1.1", "1.2", "2"], ["removed"] * 4, "1.1 1.2 2.1 2.2"),
    ],
)
def test_a_recurrent_cell_from_the_end_and_from_the_middle(layers, outcomes, word):
    model = settled(create_model("cifar_resnet20_dia_lstm", num_classes=4, attention_stages=(1, 2)))
    images = batches()
    calls = [(f"stages.{int(fate) - 1}.attention.gate", c) for fate, c in _calls(layers)]
    expected = with_means(model, ["stages.0.attention.gate", "stages.1.attention.gate"], images[0][0], set(calls))
    found = folded(model, layers=layers)
    assert [fate.outcome for fate in found.fates][: len(outcomes)] == outcomes
    assert_equal_to(expected, found.model(images[0][0]))
    if "2" in layers:
        assert found.model.spec == create_model("cifar_resnet20", num_classes=4).spec
        return
    assert found.model.spec.options["attention_folded"] == word
    again = build_model(found.model.spec).eval()
    again.load_state_dict(found.model.state_dict())
    assert torch.equal(again(images[0][0]), found.model(images[0][0]))
    with pytest.raises(ModelInputError, match="was folded before"):
        folded(again)


def _calls(layers):
    for word in layers:
        stage, dot, layer = word.partition(".")
        yield from ((stage, int(layer) - 1),) if dot else ((stage, 0), (stage, 1))


def test_a_cell_that_cannot_be_divided_by_its_gate_keeps_a_constant():
    model = settled(create_model("cifar_resnet20_dia_lstm", num_classes=4, attention_stages=(1,)))
    with torch.no_grad():  # one channel's output gate is shut: h is 0 in float32
        model.stages[0].attention.cells[0].input_gates[2].bias[3 * 64] = -1e4
    images = batches()
    expected = with_means(model, ["stages.0.attention.gate"], images[0][0], {("stages.0.attention.gate", 0)})
    found = folded(model, layers=["1.1"])
    assert (found.fates[0].outcome, found.model.spec.options["attention_folded"]) == ("constant", "1.1*")
    assert_equal_to(expected, found.model(images[0][0]))
    again = build_model(found.model.spec).eval()
    again.load_state_dict(found.model.state_dict())
    assert torch.equal(again(images[0][0]), found.model(images[0][0]))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return nn.functional.relu(x + self.norm(self.conv(x)))


class Residual(nn.Module):
    """Two stages of two blocks."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2), nn.Linear(4, 4)
        self.first, self.second = nn.Sequential(Block(), Block()), nn.Sequential(Block(), Block())

    def forward(self, x):
        return self.head(self.second(self.pool(self.first(self.stem(x)))).mean((2, 3)))


@pytest.mark.parametrize(("name", "layers"), [("se", ["2.1"]), ("dia_lstm", None), ("dia_lstm", ["1.2", "2.2"])])
def test_attached_attention_is_taken_off_again(name, layers):
    plain, images = Residual(), batches()
    names = set(plain.state_dict())
    model = settled(attach(plain, name, images=images[0][0], reduction=4))
    shared = name.startswith("dia")
    gates = [f"attention.{s}{'' if shared else f'.{b}'}.gate" for s in range(2) for b in range(2)]
    every = None if layers is None else {(g, int(w[2]) - 1 if shared else 0) for w, g in _gates(layers, shared)}
    expected = with_means(model, list(dict.fromkeys(gates)), images[0][0], every)
    found = folded(model, images, layers=layers)
    assert_equal_to(expected, found.model(images[0][0]))
    assert (set(found.model.state_dict()) == names) == (layers is None)
    found.model(images[0][0])  # and once more: no pass is left behind


def test_a_call_that_later_ones_of_an_attached_cell_need_stays():
    images = batches()
    model = settled(attach(Residual(), "dia_lstm", images=images[0][0], reduction=4))
    found = folded(model, images, layers=["1.1", "2.2"])
    assert [fate.outcome for fate in found.fates] == ["as it was", "as it was", "as it was", "removed"]
    assert found.fates[0].reason == "later calls of its module need this one"
    expected = with_means(model, ["attention.1.gate"], images[0][0], {("attention.1.gate", 1)})
    assert_equal_to(expected, found.model(images[0][0]))


def _gates(words, shared):
    for word in words:
        stage, layer = int(word[0]) - 1, int(word[2]) - 1
        yield word, f"attention.{stage}.gate" if shared else f"attention.{stage}.{layer}.gate"


def test_layers_are_given_up_by_what_they_cost(monkeypatch):
    """One gate decides the class, the others say nothing: these go first, and the accuracy stops at the one."""
    torch.manual_seed(0)
    parts = [*deciding(True), *deciding(False), *deciding(False)]
    model = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(40, 2, 4, 4)
    labels = (images.mean((1, 2, 3)) > 0.5).long()
    given = [(images, labels)]
    found = fold_attention(model, given, given, given, max_accuracy_drop=0.0)
    assert [(step.stage, step.number) for step in found.greedy][-1] == (1, 1)
    assert found.chosen == 2
    assert [fate.outcome for fate in found.fates] == ["as it was", "removed", "removed"]
    assert torch.equal(found.test, found.validation)
    assert bool(found.test_after.all())
    assert not bool(found.greedy[-1].test.all())
    assert sorted((s.stage, s.number) for s in found.random) == sorted((s.stage, s.number) for s in found.greedy)


def deciding(decides):
    """A gate by which the mean of the image decides which of two channels is larger; or one that is always 1/2."""
    convolution, gate = nn.Conv2d(2, 2, 1), Excitation(nn.Sigmoid(), 2)
    with torch.no_grad():
        for parameter in (*convolution.parameters(), *gate.parameters()):
            parameter.zero_()
        convolution.weight[:, :, 0, 0] = torch.full((2, 2), 0.5) if decides else torch.eye(2)
        if decides:
            gate.fc.weight.copy_(torch.tensor([[-50.0, -50.0], [50.0, 50.0]]))
            gate.fc.bias.copy_(torch.tensor([50.0, -50.0]))
    return convolution, gate


def test_what_cannot_be_is_said():
    model = settled(Net([BN()], Excitation(nn.Sigmoid()), []))
    with pytest.raises(ModelInputError, match=r"'3' given; give stages such as '2', or layers: 1\.1"):
        folded(model, layers=["3"])
    with pytest.raises(ModelInputError, match="no class number for each image"):
        fold_attention(model, batches()[0][0], batches()[0][0])
    with pytest.raises(ModelInputError, match="multiplies its features by no gate of channels"):
        folded(create_model("cifar_resnet11", num_classes=4))
    with pytest.raises(ModelInputError, match="attention_folded: '1' is no layer"):
        create_model("cifar_resnet20_se", attention_folded="1")
    with pytest.raises(ModelInputError, match=r"there is no layer 1\.3"):
        create_model("cifar_resnet20_se", attention_folded="1.3")
    with pytest.raises(ModelInputError, match="2 given; give a share"):
        fold_attention(model, batches(), max_accuracy_drop=2.0)
