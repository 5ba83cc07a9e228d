"""Attention on networks from elsewhere: in the right place, and its state nowhere but in the running forward pass."""

import copy
import subprocess
import sys
import threading
from functools import cache

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import Bottleneck, ResNet

from dia_analysis import capture
from dia_models import AttachedAttention, ModelInputError, attach, create_model
from dia_models.attention import attention_names
from dia_models.surgery.attach import _passes

pytestmark = pytest.mark.numeric

OPTIONS = {"sge": {"groups": 16}, "dia_sge": {"groups": 16}}


def build(name):
    if name in BUILT:
        return BUILT[name]()
    library, _, name = name.partition(" ")
    return {"tv": torchvision.models.get_model, "timm": timm.create_model}[library](name)


def bottlenecks(**options):
    return ResNet(Bottleneck, [2, 1, 1, 1], **options)


BUILT = {  # shallow members of families, to be quick
    "resnext": lambda: bottlenecks(groups=32, width_per_group=4),
    "wide resnet": lambda: bottlenecks(width_per_group=128),
    "convnext": lambda: ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, 64, 1), CNBlockConfig(64, None, 3)]),
}


def lively(model):
    """Norms away from 0 and 1, some of which start at 0 at a branch's end, so that every branch counts."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0)
                module.bias.uniform_(-0.5, 0.5)
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.9, 1.1)
    return model


@cache
def original():
    return lively(torchvision.models.resnet18(num_classes=5))


def resnet():
    return copy.deepcopy(original())


def small(**options):
    return attach(resnet(), "dia_lstm", **options).eval()


def images(count=2, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


@pytest.fixture(autouse=True)
def _no_pass_is_left_running():
    _passes().clear()
    yield
    assert not _passes()


# The place: the end of the residual branch.

BLOCKS = {
    "tv resnet18": [2, 2, 2, 2],
    "tv resnet50": [3, 4, 6, 3],
    "resnext": [2, 1, 1, 1],
    "wide resnet": [2, 1, 1, 1],
    "tv regnet_x_400mf": [1, 2, 7, 12],
    "convnext": [2, 1, 3],
    "tv mobilenet_v2": [1, 2, 3, 2, 2],  # the first block of each stage has no shortcut
    "timm resnet18": [2, 2, 2, 2],
    "timm resnet50": [3, 4, 6, 3],
    "timm resnetv2_50": [3, 4, 6, 3],
    "timm regnetx_002": [1, 1, 4, 7],
    "timm convnext_atto": [2, 2, 6, 2],
}


@pytest.mark.parametrize("name", BLOCKS)
def test_with_gates_of_one_the_network_is_what_it_was(name):
    model = lively(build(name)).eval()
    with torch.no_grad():
        if "convnext" in name:
            for block, gamma in model.named_parameters():
                if block.endswith(("gamma", "layer_scale")):
                    gamma.fill_(1.0)
        before = model(images())
        attach(model, "dia_lstm")
        assert [len(ends) for ends in model.attention.ends] == BLOCKS[name]
        assert not torch.allclose(model(images()), before, rtol=1e-2)
        for stage in model.attention:
            stage.gate.register_forward_hook(lambda _, __, gate: torch.ones_like(gate))
        torch.testing.assert_close(model(images()), before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def norm(x, w, prefix):
    mean, variance = w[f"{prefix}.running_mean"], w[f"{prefix}.running_var"]
    x = (x - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + 1e-5).sqrt()
    return x * w[f"{prefix}.weight"].view(1, -1, 1, 1) + w[f"{prefix}.bias"].view(1, -1, 1, 1)


def lstm(y, w, prefix, h, c):
    n, pre = y.shape[1], 0
    for x, part in ((y, "input_gates"), (h, "hidden_gates")):
        first, second = f"{prefix}.cells.0.{part}.0", f"{prefix}.cells.0.{part}.2"
        reduced = torch.relu(x @ w[f"{first}.weight"].T + w[f"{first}.bias"])
        pre = pre + reduced @ w[f"{second}.weight"].T + w[f"{second}.bias"]
    i, f, g, o = (pre[:, k * n : (k + 1) * n] for k in range(4))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.sigmoid(c), c


def resnet18_with_dia_lstm(x, w):
    x = torch.relu(norm(F.conv2d(x, w["conv1.weight"], stride=2, padding=3), w, "bn1"))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage in range(4):
        h = c = torch.zeros(len(x), 64 * 2**stage, dtype=x.dtype)
        for block in range(2):
            p, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            a = torch.relu(norm(F.conv2d(x, w[f"{p}.conv1.weight"], stride=stride, padding=1), w, f"{p}.bn1"))
            a = norm(F.conv2d(a, w[f"{p}.conv2.weight"], padding=1), w, f"{p}.bn2")
            if stride == 2:
                x = norm(F.conv2d(x, w[f"{p}.downsample.0.weight"], stride=2), w, f"{p}.downsample.1")
            h, c = lstm(a.mean((2, 3)), w, f"attention.{stage}", h, c)
            x = torch.relu(x + a * h[:, :, None, None])
    return x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def test_resnet18_equals_a_plain_forward():
    model = small().double()
    x = images(3, 64).double()
    with torch.no_grad():
        expected = resnet18_with_dia_lstm(x, model.state_dict())
        assert expected.std() > 1e-2
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


class Wrapped(nn.Module):
    """Hides that a network is one of ours."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def place(key):
    """Where a network of ours, wrapped and attached, has what it has by this name with attention of its own."""
    stage, part, rest = key[7:8], key[9:18], key[19:]
    return f"attention.{stage}.{rest}" if part == "attention" else f"net.{key}"


@pytest.mark.parametrize("name", attention_names())
def test_every_module_does_what_it_does_in_our_networks(name):
    """In training mode, where each layer's own batch norm, if it has one, must have seen its own layer."""
    options = OPTIONS.get(name, {})
    ours = create_model(f"cifar_resnet20_{name}", **options).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x = images(4, 8).double()
    model = attach(Wrapped(create_model("cifar_resnet20").double()), name, images=x, **options)
    model.load_state_dict({place(key): value for key, value in ours.state_dict().items()})
    torch.testing.assert_close(model.train()(x), ours.train()(x))
    for key, value in ours.state_dict().items():
        torch.testing.assert_close(model.state_dict()[place(key)], value)


def test_stages_and_branch_ends_can_be_named():
    by_stage = small(stages=["layer2", ["layer4.1"]])
    assert by_stage.attention.ends == (("layer2.0.bn2", "layer2.1.bn2"), ("layer4.1.bn2",))
    by_end = small(stages=[["layer3.1.bn2", "layer3.0.bn2"]])
    assert by_end.attention.ends == (("layer3.0.bn2", "layer3.1.bn2"),)
    by_stage(images())
    by_end(images())


def test_a_network_without_shortcuts_takes_named_places():
    model = torchvision.models.squeezenet1_1(num_classes=5)
    attach(model, "dia_se", stages=[["features.3", "features.4"]]).eval()
    with capture(model) as records:
        model(images(1, 64))
    assert [(*key, value.shape[1]) for key, value in records.items()] == [
        ("attention.0.gate", 0, 128),
        ("attention.0.gate", 1, 128),
    ]


class Gated(nn.Module):
    """A residual block with squeeze-excitation as people write it."""

    def __init__(self, way):
        super().__init__()
        self.way, self.conv, self.norm = way, nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.fc = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())
        self.first, self.second = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.place = nn.Conv2d(16, 1, 7, padding=3)

    def forward(self, x):
        return x + WAYS[self.way](self, self.norm(self.conv(x)))


WAYS = {
    "view": lambda block, x: x * block.fc(x.mean((2, 3))).view(*x.shape[:2], 1, 1),
    "expand": lambda block, x: block.fc(x.mean((2, 3)))[..., None, None].expand_as(x) * x,
    "no module": lambda block, x: x * block.second(block.first(x.mean((2, 3), True)).relu()).sigmoid(),
    "relu6": lambda block, x: x * (F.relu6(block.second(block.first(x.mean((2, 3), True))) + 3) / 6),
    "spatial": lambda block, x: x * block.place(x).sigmoid(),
    "swish": lambda _, x: x * x.sigmoid(),
    "scale": lambda block, x: x * block.norm.weight.view(1, -1, 1, 1),
}


def gated(way):
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Sequential(Gated(way), Gated(way)))


class Holder(nn.Module):
    """A network, not a row of modules."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("way", ["view", "expand", "no module", "relu6", "spatial"])
def test_a_network_that_multiplies_its_features_by_a_gate_is_refused(way):
    model = Holder(gated(way))
    names = list(model.state_dict())
    with pytest.raises(ModelInputError, match=r"^the network has attention: .* a gate 2 times, first by body.1.0"):
        attach(model, "eca")
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("way", ["swish", "scale"])
def test_swish_and_a_learned_scale_are_no_gate(way):
    model = attach(Holder(gated(way)), "eca", stages=[["body.1.0.norm", "body.1.1.norm"]])
    assert len(model.attention) == 1


def test_squeeze_excitation_of_timms_older_networks_is_refused():
    with pytest.raises(ModelInputError, match="a gate 8 times, first by layer1.0.se_module.sigmoid;"):
        attach(timm.create_model("legacy_seresnet18"), "se")


def test_attention_beside_existing_attention_comes_last():
    model = attach(timm.create_model("seresnet50"), "dia_lstm", in_addition=True)
    assert model.attention.ends[0] == ("layer1.0.se", "layer1.1.se", "layer1.2.se")


# Saving, and what a network gains.


def test_all_names_of_the_network_stay_and_the_attention_is_listed_once():
    model = torchvision.models.resnet18()
    before = list(model.state_dict())
    attach(model, "dia_lstm")
    names = list(model.state_dict())
    assert [name for name in names if not name.startswith("attention.")] == before
    tensors = [tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel() > 1]
    assert len(set(tensors)) == len(tensors)
    added = sum(10 * n * n // 4 + 2 * n // 4 + 8 * n for n in (64, 128, 256, 512))
    assert sum(p.numel() for p in model.parameters()) == 11_689_512 + added


def test_weights_survive_a_file(tmp_path):
    model, twin = small(), small()
    assert not torch.allclose(model(images()), twin(images()))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    twin.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(model(images()), twin(images()))


def test_published_weights_load_before_or_after():
    published = resnet().state_dict()
    model = small()
    missing, unexpected = model.load_state_dict(published, strict=False)
    assert not unexpected
    assert {name.partition(".")[0] for name in missing} == {"attention"}


def test_capture_sees_a_shared_module_call_by_call_and_individual_ones_by_name():
    shared, individual = small(), attach(resnet(), "se").eval()
    with capture(shared) as records:
        shared(images())
    assert list(records) == [(f"attention.{stage}.gate", call) for stage in range(4) for call in range(2)]
    assert [record.feature_size for record in records.in_order()][::2] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert not torch.equal(records["attention.0.gate", 0], records["attention.0.gate", 1])
    with capture(individual) as records:
        individual(images())
    assert list(records) == [(f"attention.{stage}.{block}.gate", 0) for stage in range(4) for block in range(2)]


def test_attaching_changes_nothing_else():
    model = resnet()
    model.layer1.eval()
    model.conv1.weight.requires_grad_(False)
    twin, twice = copy.deepcopy(model), model.state_dict()
    attach(model, "eca")
    assert {name: m.training for name, m in twin.named_modules()}.items() <= {
        name: m.training for name, m in model.named_modules()
    }.items()
    assert not model.conv1.weight.requires_grad
    for name, value in twin.state_dict().items():
        assert torch.equal(value, twice[name])
    assert hooks(model) == 8 + 2  # eight branches, the start and the end


def test_training_reaches_every_parameter_and_lowers_the_loss():
    model = attach(torchvision.models.resnet18(num_classes=4), "dia_lstm").train()
    x, y = images(16), torch.arange(16) % 4
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9), []
    for step in range(8):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            assert all(p.grad.abs().max() > 0 for p in model.attention.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


# The state: empty at each stage's start, gone at the end.


def test_two_forward_passes_are_independent():
    model = small()
    first = model(images())
    model(torch.randn(3, 3, 40, 40))
    assert torch.equal(model(images()), first)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_pass_leaves_no_state(error):
    model = small()
    expected = model(images())

    def fail(*_):
        raise error("on purpose")

    handle = model.layer2[1].conv2.register_forward_hook(fail)
    with pytest.raises(error, match="on purpose"):
        model(images())
    if error is RuntimeError:
        assert not _passes()
    handle.remove()
    assert torch.equal(model(images()), expected)


def test_interleaved_networks_do_not_meet():
    model, other = small(), small()
    twin = copy.deepcopy(model)
    expected = [network(images()) for network in (model, other, twin)]
    seen = []
    model.layer2[1].conv1.register_forward_hook(lambda *_: seen.extend([other(images()), twin(images())]))
    result = model(images())
    for found, right in zip([result, *seen], expected, strict=True):
        assert torch.equal(found, right)


def test_threads_that_share_a_network_do_not_meet():
    model, barrier, results = small(), threading.Barrier(2), {}
    batches = [images(), torch.randn(3, 3, 32, 32)]
    expected = [model(batch) for batch in batches]

    def meet(*_):
        barrier.wait(60)

    model.layer1[1].conv1.register_forward_hook(meet)

    def run(number):
        results[number] = model(batches[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(results[number], expected[number]) for number in range(2))


def test_a_copy_is_on_its_own():
    model = small()
    twin, expected = copy.deepcopy(model), model(images())
    assert torch.equal(twin(images()), expected)
    with torch.no_grad():
        for parameter in twin.attention.parameters():
            parameter += 1.0
    assert torch.equal(model(images()), expected)
    assert not torch.allclose(twin(images()), expected)
    twin(images()).sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())


def replica(model):
    """What torch.nn.DataParallel makes: shallow copies that share their hooks, with children and weights replaced."""
    copies = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, copied in copies.items():
        for name, child in module._modules.items():
            copied._modules[name] = child if child is None else copies[child]
            setattr(copied, name, copied._modules[name])
        for name, parameter in module._parameters.items():
            setattr(copied, name, parameter if parameter is None else parameter * 2)
    return copies[model]


def test_a_replica_uses_its_own_weights():
    model = small()
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in doubled.parameters():
            parameter *= 2
        torch.testing.assert_close(replica(model)(images()), doubled(images()))


ELSEWHERE = """
import sys, torch, torchvision
from dia_analysis import capture
from dia_models import ModelInputError, attach
model, images, expected, keys = torch.load(sys.argv[1], weights_only=False)
with capture(model) as records:
    assert torch.equal(model(images), expected)
assert list(records) == keys
assert torch.equal(model(images), expected)

compiled = torch.compile(model, backend="eager", fullgraph=True)
for _ in range(2):
    torch.testing.assert_close(compiled(images), expected)
compiled(images).sum().backward()
assert all(parameter.grad is not None for parameter in model.attention.parameters())
with capture(compiled) as records:
    compiled(images)
assert list(records) == keys
try:
    attach(torch.compile(torchvision.models.resnet18()), "dia_se")
except ModelInputError as error:
    print(error)
"""


def test_a_pickled_network_works_in_another_process_and_compiles_into_one_graph(tmp_path):
    model = small()
    with capture(model) as records:
        expected = model(images())
    torch.save((model, images(), expected.detach(), list(records)), tmp_path / "model.pt")
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "model.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "attach to the network itself, before it is compiled or made parallel\n"


def test_gradients_accumulate():
    model = small().double()
    whole = copy.deepcopy(model)
    x = images(4).double()
    whole(x).square().sum().backward()
    losses = [model(part).square().sum() for part in x.split(2)]  # both passes live at once
    for loss in losses:
        loss.backward()
    for a, b in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


class Recomputed(nn.Module):
    """Activation checkpointing of a part, once `kind` is set."""

    def __init__(self, part):
        super().__init__()
        self.part, self.kind = part, None

    def forward(self, x):
        return self.part(x) if self.kind is None else checkpoint(self.part, x, use_reentrant=self.kind == "reentrant")


def recomputing(name, by):
    model = resnet()
    for number in (1, 2, 3, 4):
        layer = model.get_submodule(f"layer{number}")
        inside = Recomputed(layer) if by == "stage" else nn.Sequential(*map(Recomputed, layer))
        setattr(model, f"layer{number}", inside)
    return attach(model, name).eval()


def gradients(model, kind):
    for part in model.modules():
        if isinstance(part, Recomputed):
            part.kind = kind
    model.zero_grad()
    model(images()).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", ["reentrant", "non-reentrant"])
@pytest.mark.parametrize(("name", "by"), [("dia_lstm", "stage"), ("dia_se", "block"), ("se", "block")])
def test_activation_checkpointing_of_stages_and_of_blocks_that_hand_nothing_on(name, by, kind):
    model = recomputing(name, by)
    expected = gradients(model, None)
    for key, gradient in gradients(model, kind).items():
        torch.testing.assert_close(gradient, expected[key], msg=key)
    _passes().clear()  # recomputing stops as soon as it has what it needs, perhaps inside a stage


@pytest.mark.parametrize("kind", ["reentrant", "non-reentrant"])
def test_activation_checkpointing_of_blocks_that_hand_a_state_on_is_refused(kind):
    model = recomputing("dia_lstm", "block")
    with pytest.raises(ModelInputError, match="must cover whole stages, not blocks"):
        gradients(model, kind)


def test_parts_run_alone():
    model = small()
    x = model.maxpool(model.relu(model.bn1(model.conv1(images()))))
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
    assert torch.equal(model.fc(x.mean((2, 3))), model(images()))
    features = create_feature_extractor(model, ["layer3"])(images())["layer3"]
    assert torch.equal(features, create_feature_extractor(copy.deepcopy(model), ["layer3"])(images())["layer3"])


def test_a_block_that_needs_the_one_before_it_does_not_run_alone():
    model = small()
    model.layer1[0](torch.randn(1, 64, 8, 8))
    model.layer1[1](torch.randn(1, 64, 8, 8))
    with pytest.raises(ModelInputError, match="attention at layer1.1.bn2 needs the state of the block before it"):
        model.layer1[1](torch.randn(1, 64, 8, 8))


def test_a_branch_end_that_was_replaced_afterwards_is_noticed():
    model = small()
    model.layer2[1].bn2 = nn.BatchNorm2d(128)
    with pytest.raises(ModelInputError, match=r"ran 1 times for the 2 blocks that end with layer2.0.bn2, layer2.1.bn2"):
        model.eval()(images())


def test_the_children_must_not_be_run_in_turn():
    class Chain(nn.Module):
        def __init__(self, *parts):
            super().__init__()
            for number, part in enumerate(parts):
                self.add_module(str(number), part)

        def forward(self, x):
            for child in self.children():
                x = child(x)
            return x

    block = resnet().layer1
    with pytest.raises(ModelInputError, match="runs its children one after the other; attach to a network inside it"):
        attach(Chain(nn.Conv2d(3, 64, 3), block), "dia_lstm")(images())


# What cannot be.


class Sums(nn.Module):
    """One convolution to each summand."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.left(x) + self.right(x)


class Functional(nn.Module):
    """The branch is no module's output."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return x + 2 * self.conv(x)


class Reused(nn.Module):
    """Runs one branch twice."""

    def __init__(self):
        super().__init__()
        self.block = Residual(nn.Conv2d(3, 3, 1))

    def forward(self, x):
        return self.block(self.block(x))


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch):
        super().__init__()
        self.branch = branch

    def forward(self, x):
        return x + self.branch(x)


class Twins(nn.Module):
    """Two blocks of one size."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (Residual(nn.Conv2d(3, 3, 1)) for _ in range(2))

    def forward(self, x):
        return F.avg_pool2d(self.second(self.first(x)), 2)


class Fixed(nn.Module):
    """Takes images of 8 pixels."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 2, 1), nn.Linear(2 * 8 * 8, 2)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


def swin():
    return torchvision.models.SwinTransformer([4, 4], 24, [2], [3], [7, 7])


REFUSED = {
    "an unknown module": (resnet, {"name": "dia_lsdm"}, "unknown attention 'dia_lsdm'; did you mean 'dia_lstm'"),
    "an unknown option": (resnet, {"reductions": 4}, "unknown options 'reductions'; did you mean 'reduction'"),
    "an option's type": (resnet, {"reduction": 4.0}, "reduction must be a whole number, not 4.0"),
    "an option's value": (resnet, {"reduction": 5}, "reduction 5 must divide the 64 channels"),
    "one of ours": (lambda: create_model("cifar_resnet20"), {}, "cifar_resnet20 is one of ours; create_model makes"),
    "attached twice": (small, {}, "the network has something named 'attention'"),
    "a container": (lambda: nn.Sequential(resnet()), {}, "a Sequential runs its children one after the other"),
    "parallel": (lambda: nn.DataParallel(resnet()), {}, "before it is compiled or made parallel"),
    "SE inside": (lambda: build("timm seresnet50"), {}, "a gate 16 times, first by layer1.0.se.gate; .*share"),
    "SE elsewhere": (
        lambda: build("tv efficientnet_b0"),
        {},
        "a gate 16 times, first by features.1.0.block.1.scale_activation",
    ),
    "no block": (
        lambda: build("tv squeezenet1_1"),
        {},
        "SqueezeNet has no residual block that adds one branch to a shortcut. Name the modules .*stages=",
    ),
    "a transformer": (swin, {}, "features.1.0 is not found: it makes 2 sums. Name the modules"),
    "equal summands": (Sums, {}, "branch of the network itself is not found: both of its summands have passed"),
    "no module": (Functional, {}, "is not found: what it adds to the shortcut is the output of no module"),
    "a reused block": (Reused, {}, "branch of block is not found: block.branch runs more than once"),
    "another size": (Fixed, {}, "fails on images of 2x3x64x64 .*give images="),
    "no convolution": (lambda: nn.Linear(2, 2), {}, "Linear has no 2-D convolution; give images="),
    "an unknown name": (resnet, {"stages": ["layer5"]}, "ResNet has no module 'layer5'; did you mean 'layer"),
    "no list": (resnet, {"stages": "layer1"}, "'layer1': give a list with one module name, or list of names, per"),
    "two sizes": (resnet, {"stages": [["layer1", "layer2"]]}, "need one size; given: 64x16x16 and 128x8x8"),
    "none": (resnet, {"stages": [[]]}, "the branches in an empty stage need one size; given: none"),
    "named twice": (resnet, {"stages": ["layer1", ["layer1.1"]]}, "the branch that layer1.1.bn2 ends is named twice"),
    "no features": (resnet, {"stages": ["fc"]}, "fc holds no residual block and cannot end a branch: it gives no"),
    "several runs": (resnet, {"stages": ["layer1.0.relu"]}, "cannot end a branch: it runs 2 times"),
}


@pytest.mark.filterwarnings("ignore:.*was only run once")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_and_changes_nothing(case):
    make, options, message = REFUSED[case]
    model = make()
    names, before = list(model.state_dict()), hooks(model)
    with pytest.raises(ModelInputError, match=message):
        attach(model, **{"name": "dia_lstm", **options})
    assert list(model.state_dict()) == names
    assert hooks(model) == before


def test_a_stage_is_a_run_of_blocks_of_one_size():
    model = attach(Twins(), "dia_eca")
    assert model.attention.ends == (("first.branch", "second.branch"),)
    assert isinstance(model.attention, AttachedAttention)
