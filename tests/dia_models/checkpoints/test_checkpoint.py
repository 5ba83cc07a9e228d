"""Checkpoints: what is saved comes back, and whatever else a file holds is refused in one line."""

import hashlib
import json
import math
import os
import pickle
import random
import resource
import struct
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dia_models import Checkpoint, CheckpointInfo, ModelInputError, create_model, list_checkpoints, load
from dia_models.attention import attention_names
from dia_models.checkpoints.checkpoint import save_checkpoint
from dia_models.checkpoints.warm_start import start_from
from dia_models.data import Preprocessing
from dia_models.files import write_atomically

IMAGES = Preprocessing(height=9, width=12, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))


def describe(spec, **fields):
    rest = {"data": "digits", "classes": ("zero", "one"), "preprocessing": IMAGES}
    return CheckpointInfo(model=spec, **(rest | fields))


def save(folder, model, **fields):
    save_checkpoint(str(folder / "a.safetensors"), model, describe(model.spec, **fields))
    return folder / "a.safetensors"


def refusal(source, match=None):
    with pytest.raises(ModelInputError, match=match) as caught:
        load(source)
    assert caught.value.argument == "ckpt"
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def same_weights(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def small_network(name="cifar_resnet11", **options):
    model = create_model(name, num_classes=2, **options)
    for buffer in model.buffers():  # statistics that a fresh network does not have
        buffer.copy_(torch.rand(buffer.shape) + 0.5 if buffer.is_floating_point() else torch.tensor(7))
    return model.eval()


def raw(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def header_end(content):
    return 8 + struct.unpack("<Q", content[:8])[0]


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    return save(tmp_path_factory.mktemp("saved"), network)


@pytest.mark.parametrize("reduction", [None, 8])
@pytest.mark.parametrize("name", ["cifar_resnet11", "cifar_resnet20_se", "cifar_resnet20_dia_lstm"])
def test_a_network_comes_back_from_the_file_alone(tmp_path, name, reduction):
    options = {"reduction": reduction} if reduction and "_" in name.removeprefix("cifar_") else {}
    model = small_network(name, **options).to(memory_format=torch.channels_last).train()
    loaded = load(save(tmp_path, model))
    assert model.training
    assert loaded.spec == model.spec
    assert (loaded.spec.name, loaded.spec.num_classes, loaded.spec.options) == (name, 2, options)
    assert same_weights(loaded.state_dict(), model.state_dict())
    images = torch.randn(2, 3, 9, 12)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model.eval()(images))
    assert not any(module.training for module in loaded.modules())


def test_the_description_and_the_checksum_of_the_file_come_back(tmp_path, network):
    fields = {
        "data": "folder:/data/Köln 東京",
        "classes": ("ä\n", '"quoted"'),
        "recipe": {"name": "paper", "epochs": 3, "nesterov": True, "learning_rate": 1.0},
        "metrics": {"test_accuracy": 0.1, "test_loss": math.log(10)},
        "seed": 2**40,
        "versions": {"torch": "2.11"},
    }
    path = save(tmp_path, network, **fields).rename(tmp_path / "a.b.safetensors")
    checkpoint = Checkpoint.read(str(path))
    assert checkpoint.info == describe(network.spec, **fields)
    assert [type(value) for value in checkpoint.info.recipe.values()] == [str, int, bool, float]
    assert checkpoint.name == "a.b"
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert same_weights(checkpoint.weights, network.state_dict())


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_run_that_diverged_leaves_a_checkpoint_that_can_be_read(tmp_path, network, loss):
    info = Checkpoint.read(save(tmp_path, network, metrics={"test_loss": loss})).info
    assert str(info.metrics["test_loss"]) == str(loss)


def test_the_file_is_a_safetensors_file_that_describes_itself(saved, network):
    content = saved.read_bytes()
    header = json.loads(content[8 : header_end(content)])
    info = json.loads(header["__metadata__"]["dia"])
    assert info["model"] == {"name": "cifar_resnet11", "num_classes": 2, "in_channels": 3, "options": {}}
    assert set(info) >= {"data", "classes", "preprocessing", "metrics", "seed", "versions"}
    assert header.keys() - {"__metadata__"} == network.state_dict().keys()


def test_the_same_network_is_the_same_file_each_time(tmp_path, network):
    contents = [save(tmp_path, network).read_bytes() for _ in range(12)]
    assert contents == contents[:1] * 12
    header_size = int.from_bytes(contents[0][:8], "little")
    assert header_size % 8 == 0


def test_loading_draws_no_random_numbers(saved):
    before = torch.get_rng_state()
    load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_networks_from_one_checkpoint_share_no_memory(saved, network):
    checkpoint = Checkpoint.read(saved)
    for tensor in checkpoint.build().state_dict().values():
        tensor.zero_()
    assert same_weights(checkpoint.build().state_dict(), network.state_dict())


@pytest.mark.parametrize("name", list_checkpoints())
def test_a_bundled_checkpoint_loads_by_name_and_a_misspelt_name_shows_it(name):
    checkpoint = Checkpoint.read(name)
    info = checkpoint.info
    assert checkpoint.name == name
    assert len(info.classes) == info.model.num_classes
    with torch.no_grad():
        logits = load(name)(torch.zeros(1, info.model.in_channels, *info.preprocessing.size))
    assert logits.isfinite().all()
    assert f"did you mean {name!r}" in refusal(name[:-1])


def test_a_name_like_no_bundled_one_is_refused_with_what_is_accepted():
    message = refusal("zzzz", "unknown checkpoint 'zzzz'; dia-train models --bundled lists all ")
    assert f"lists all {len(list_checkpoints())}; also accepted: a path to a .safetensors file" in message


def test_a_file_of_another_length_is_refused(saved, tmp_path):
    content, path, draw = saved.read_bytes(), tmp_path / "cut.safetensors", random.Random(0)
    end = header_end(content)
    lengths = [*range(40), end - 1, end, end + 1, len(content) - 1]
    for length in lengths + draw.sample(range(end), 60) + draw.sample(range(len(content)), 60):
        path.write_bytes(content[:length])
        refusal(path)
    path.write_bytes(content + b"\0")
    refusal(path)


def corrupted(content, draw, start, stop):
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8, 40))):
        at = draw.randrange(start, stop)
        changed[at] = draw.choice((changed[at] ^ 1 << draw.randrange(8), draw.randrange(256)))
    return bytes(changed)


def read_or_refusal(path):
    try:
        return Checkpoint.read(path)
    except ModelInputError as error:
        return error


@pytest.mark.parametrize("part", ["length", "header", "description", "weights"])
def test_changed_bytes_are_refused_or_change_nothing(saved, tmp_path, part):
    content, path, original = saved.read_bytes(), tmp_path / "changed.safetensors", Checkpoint.read(saved)
    end, description = header_end(content), content.index(b'"dia"')
    parts = {"length": (0, 8), "header": (0, end), "weights": (end, len(content))}
    start, stop = parts.get(part, (description, description + 700))
    draw, refused, times = random.Random(part), 0, 400 if part == "header" else 200
    for _ in range(times):
        path.write_bytes(corrupted(content, draw, start, stop))
        found = read_or_refusal(path)
        if isinstance(found, ModelInputError):
            refused += 1
            assert found.argument == "ckpt"
            assert len(str(found).splitlines()) == 1
        else:
            assert found.info == original.info
            assert same_weights(found.weights, original.weights)
    assert refused > times / 2


def test_safetensors_files_that_are_no_checkpoints_are_refused(tmp_path, network):
    path = tmp_path / "a.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"a": torch.ones(3)}, path, metadata)
        refusal(path, "header does not say which network")
    save_file(network.state_dict(), path, {"dia": describe(network.spec).model_dump_json()})
    refusal(path, "checksum")


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["torch", "old torch", 0, 2, 4, 5])
def test_a_pickle_is_refused_and_does_not_run(tmp_path, form):
    path, target = tmp_path / "a.safetensors", tmp_path / "it-ran"
    if isinstance(form, int):
        path.write_bytes(pickle.dumps(Malicious(target), protocol=form))
    else:
        torch.save(Malicious(target), path, _use_new_zipfile_serialization=form == "torch")
    refusal(path, None if form == 0 else "pickled PyTorch file, which could run code")
    assert not target.exists()


METADATA = [None, [], {"dia": {}}, {"dia": "{}"}, {"dia": "[" * 10**5}, {"dia": "\ud800"}, {"dia": None}]
HEADERS = [[], None, 7, b"[" * 10**5, b'{"a":' * 10**5, b"1" * 10**4, b'{"__metadata__":{"dia":"\xff"}}', b"{}\0"]
HEADERS += [{"__metadata__": metadata, "a": None} for metadata in METADATA]
LENGTHS = [0, 1, 2**24, 2**24 + 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
DAMAGED = [b"", b"\0", b"\0" * 8, b"hello, world\n" * 100, b"\x89PNG\r\n\x1a\n", *map(raw, HEADERS)]
DAMAGED += [raw({}, b"\0" * 64, length) for length in LENGTHS]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:30]))
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    refusal(tmp_path / "a", "damaged or no checkpoint")


@pytest.mark.parametrize("name", ["no", "no.safetensors", "no/such", "", pytest.param("b" * 5000, id="long")])
def test_a_path_without_a_file_is_refused(tmp_path, name):
    refusal(tmp_path / name, "file")
    refusal(str(tmp_path / name), "file")


def test_the_home_folder_of_nobody_is_refused():
    refusal("~no-such-user/a.safetensors")


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.touch(mode=0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    refusal(path)


SHAPES = [[2**32, 2**32], [10**18], [0, 10**18], [0, 2**62, 2**62], [0, 2**63], [-1], [10**30], [1.5], ["x"]]


@pytest.mark.parametrize("shape", SHAPES)
def test_tensors_of_impossible_sizes_are_refused(tmp_path, network, shape):
    metadata = {"dia": describe(network.spec).model_dump_json(), "dia.sha256": "0" * 64}
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    (tmp_path / "a").write_bytes(raw({"__metadata__": metadata, "a": tensor}))
    refusal(tmp_path / "a", "damaged")


class Claims(CheckpointInfo):
    """A description that says whatever it is told to."""

    text: str

    def model_dump_json(self, **_):
        return self.text


NAMES = ["cifar_resnet9000000002_se", "cifar_resnet999992_se", "cifar_resnet12", "resnet50", "x" * 10**4]
REDUCTIONS = [{"reduction": value} for value in (10**30, -1, 0, 7, 4, 4.0, "4", None, [4])]
OTHERS = [("name", "a"), ("num_classes", 2), ("in_channels", 3), ("depth", 11), ("channels", 8)]
CLAIMS = {
    "model.num_classes": [10**12, 10**6, 0, None],
    "model.in_channels": [10**9, 1],
    "model.name": NAMES,
    "model.options": [*REDUCTIONS, *({name: value} for name, value in OTHERS), 1],
    "model.more": [1],
    "more": [1],
    "schema_name": ["dia.checkpoint/2"],
    "classes": [3],
    "data": ["x" * 5000],
    "preprocessing.height": [10**9],
    "preprocessing.mean": [[0.5], [0.5] * 4],
    "preprocessing.std": [[], [0.5, 0.0, 0.5], [0.5]],
}


@pytest.mark.parametrize(
    ("field", "value"), [(f, v) for f, values in CLAIMS.items() for v in values], ids=lambda v: str(v)[:40]
)
def test_impossible_claims_are_refused_in_little_memory(tmp_path, field, value):
    model, path = small_network("cifar_resnet11_se"), tmp_path / "a.safetensors"
    description = json.loads(describe(model.spec).model_dump_json())
    *parents, last = field.split(".")
    (description[parents[0]] if parents else description)[last] = value
    save_checkpoint(path, model, Claims(**dict(describe(model.spec)), text=json.dumps(description)))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - peak < 200 * 2**20


CHANGES = {
    "half": lambda model: model.half(),
    "missing": lambda model: delattr(model, "classifier"),
    "shape": lambda model: setattr(model, "classifier", nn.Linear(256, 3)),
    "extra": lambda model: setattr(model, "extra", nn.Linear(1, 1)),
    "deeper": lambda model: setattr(model, "stages", small_network("cifar_resnet20").stages),
    "attention": lambda model: setattr(model, "stages", small_network("cifar_resnet11_se").stages),
    "a name of two lines": lambda model: model.add_module("two\nlines", nn.Linear(1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_of_another_network_are_refused(tmp_path, change):
    model = small_network()
    CHANGES[change](model)
    refusal(save(tmp_path, model), "weights do not fit cifar_resnet11")


def test_writing_makes_folders_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    for content in (b"old", b"", b"new" * 100_000):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_half_way_keeps_the_old_file(tmp_path, network):
    path = save(tmp_path, network, seed=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as a full disk would
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path, network, seed=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Checkpoint.read(path).info.seed == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_target_that_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", b"new")
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "folder", tmp_path / "folder" / "inside"]


FAMILIES = [f"cifar_resnet11_{name}" for name in attention_names()]
FAMILIES += ["cifar_preresnet11_dia_cbam", "cifar_wrn52_4_dia_srm", "cifar_resnext101_8x32_dia_lstm_light"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kind_of_network_survives_a_round_trip(tmp_path, name):
    options = {"attention_stages": (1, 3)}
    model = create_model(name, num_classes=2, **options).eval()
    again = load(save(tmp_path, model))
    images = torch.randn(1, 3, 8, 8)
    assert again.spec.options == options
    assert torch.equal(model(images), again(images))


def test_a_network_without_attention_starts_from_the_one_with_it():
    checkpoint, model = Checkpoint.read("digits-resnet56-se"), create_model("cifar_resnet56", in_channels=1)
    start_from(checkpoint, model)
    kept = {name: tensor for name, tensor in checkpoint.weights.items() if ".attention." not in name}
    assert model.state_dict().keys() == kept.keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ModelInputError, match="holds cifar_resnet56_se of 10 classes, which cannot start"):
        start_from(checkpoint, create_model("cifar_resnet56_eca", in_channels=1))
