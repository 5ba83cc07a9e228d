"""Networks of all sources, what is known of the images that they expect, and what is refused."""

import json

import pytest
import torch
from torch import nn

from dia_models import ModelInputError, create_model, open_network
from dia_models.data import Preprocessing
from dia_models.networks.data_facts import DataFacts

NET = """
from types import SimpleNamespace

import torch
from torch import nn
from helper import CHANNELS

print("something")


class Net(nn.Module):
    def __init__(self, width=4, num_classes=5):
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, width, 3)
        self.fc = nn.Linear(width * 26 * 26, num_classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().flatten(1))


def any_option(**options):
    return Net(**options)


def needs(width, *, depth):
    return Net(width)


def fails():
    return 1 / 0


def leaves():
    raise SystemExit(3)


def nothing():
    Net()


class Two(Net):
    def forward(self, image, text):
        return image


MADE = Net()


def compiled():
    inside = nn.Sequential(torch.compile(Net()))
    inside.compile()
    return torch.compile(nn.DataParallel(inside))


def halved():
    return Net().bfloat16()


def scripted():
    return nn.Sequential(nn.Identity(), torch.jit.trace(nn.Conv2d(1, 1, 3), torch.ones(1, 1, 8, 8)))


def quantized():
    part = nn.Linear(784, 2)
    part.weight = nn.Parameter(torch.quantize_per_tensor(part.weight.detach(), 0.1, 0, torch.qint8), False)
    return nn.Sequential(nn.Flatten(), part)


def meta():
    with torch.device("meta"):
        return Net()


def exported():
    return torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))


def lazy():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(3))


def features():
    return nn.Sequential(nn.Conv2d(1, 2, 3))


def of_timm():
    import timm

    return timm.create_model("test_resnet", num_classes=2)


class Configured(Net):
    def __init__(self):  # as transformers makes networks
        super().__init__(num_classes=2)
        self.config = SimpleNamespace(id2label={0: "cat", 1: "dog"}, image_size=28, num_channels=1)


class Dictionary(Net):
    def forward(self, x):
        return {"logits": super().forward(x)}
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    """A file with networks, in the working directory."""
    (tmp_path / "helper.py").write_text("CHANNELS = 1")
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "net.py"


def refused(name, **given):
    with pytest.raises(ModelInputError) as caught:
        open_network(name, **given)
    assert len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)
    return f"{caught.value.argument}: {caught.value}"


def test_a_network_of_ones_own_is_made_with_its_options(net, capsys):
    opened = open_network(f"{net}:Net", options={"width": 3}, num_classes=7, image_size=28, mean=0.5, std=[0.25])
    assert opened.model.conv.out_channels == 3
    assert not opened.model.training
    assert (opened.num_classes, opened.classes, opened.training) == (7, None, "none")
    assert opened.preprocessing.model_dump() == {"height": 28, "width": 28, "mean": (0.5,), "std": (0.25,)}
    assert opened.assumptions() == []
    assert opened.name == "net.Net"
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "something" in printed.err


def test_a_module_is_found_in_the_working_directory_and_the_path_stays(net):
    import sys

    before = list(sys.path)
    assert open_network("net:Net").num_classes == 5
    assert sys.path == before


def test_two_folders_may_have_files_of_one_name(net, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "helper.py").write_text("CHANNELS = 3")
    (other / "net.py").write_text(NET)
    opened = [open_network(f"{folder}/net.py:Net") for folder in (tmp_path, other, tmp_path)]
    assert [each.model.conv.in_channels for each in opened] == [1, 3, 1]


def test_random_weights_come_from_the_seed_alone(net):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, again, other = (open_network(f"{net}:Net", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)
    assert first.sha256 == again.sha256 != other.sha256
    assert first.untrained() is None


def test_the_untrained_copy_is_made_again_without_the_weights(net):
    trained = open_network(f"{net}:Net", seed=7)
    torch.save(trained.model.state_dict(), "a.pth")
    opened = open_network(f"{net}:Net", weights="a.pth", seed=3)
    start = opened.untrained()
    assert (opened.training, opened.weights) == ("loaded", "a.pth")
    assert opened.sha256 == trained.sha256
    assert not start.exact
    assert not start.model.training
    assert torch.equal(start.model.fc.weight, open_network(f"{net}:Net", seed=3).model.fc.weight)


def test_the_size_that_a_network_needs_is_found_and_told(net):
    opened = open_network(f"{net}:Net")
    assert opened.preprocessing.size == (28, 28)
    assert "image_size 28x28 (the first of the usual sizes that it takes)" in opened.assumptions()
    assert "it takes 28x28 with 1 channel" in refused(f"{net}:Net", image_size=32)
    assert "it takes 28x28 with 1 channel" in refused(f"{net}:Net", channels=3)


def test_what_wraps_a_network_is_taken_off(net):
    names = [name for name, _ in open_network(f"{net}:compiled").model.named_modules()]
    assert names == ["", "0", "0.conv", "0.fc"]
    assert open_network(f"{net}:halved").model.fc.weight.dtype == torch.float32


def test_layers_that_find_their_size_take_weights(net):
    opened = open_network(f"{net}:lazy", image_size=12)
    torch.save(opened.model.state_dict(), "a.pth")
    again = open_network(f"{net}:lazy", image_size=12, weights="a.pth", seed=1)
    assert again.sha256 == opened.sha256


def test_weights_fill_a_network_without_values(net):
    torch.save(open_network(f"{net}:Net").model.state_dict(), "a.pth")
    assert open_network(f"{net}:meta", weights="a.pth").model.conv.weight.device.type == "cpu"
    assert "conv.weight is on the meta device, without values" in refused(f"{net}:meta")


def test_the_class_scores_may_stand_in_a_dict_and_need_not_be_there(net):
    assert open_network(f"{net}:Dictionary").num_classes == 5
    assert open_network(f"{net}:features").num_classes is None


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        (
            "net.py:Net",
            {"options": {"widht": 3}},
            "no option widht; did you mean 'width'? accepted: num_classes, width",
        ),
        ("net.py:needs", {"options": {"width": 3}}, "set: net.py:needs cannot be called without depth"),
        (
            "net.py:fails",
            {},
            "fails raised an error: ZeroDivisionError: division by zero (at net.py, line ",
        ),
        ("net.py:leaves", {}, "model: net.py:leaves raised an error: SystemExit: 3"),
        (
            "net.py:any_option",
            {"options": {"depth": 3}},
            "TypeError: Net.__init__() got an unexpected",
        ),
        ("net.py:nothing", {}, "gives a NoneType, where a torch.nn.Module is needed; it needs a return"),
        ("net.py:exported", {}, "gives an exported program"),
        ("net.py:MADE", {}, "is a network that is made already"),
        ("net.py:Two", {}, "its forward takes image, text; analyses show it images alone"),
        ("net.py:scripted", {}, "its part 1 is scripted or traced"),
        ("net.py:quantized", {}, "is quantized"),
        ("net.py:nets", {}, "net.py has no nets; did you mean 'needs'? it defines Configured, Dictionary, MADE, Net, "),
        ("net.py", {}, "model: net.py is a file; accepted: "),
        ("nowhere.py:Net", {}, "there is no file nowhere.py"),
        ("nowhere.net:Net", {}, "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("broken.py:Net", {}, "cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        (
            "net.py:Net",
            {"mean": [0.5, 0.5], "channels": 3},
            "mean: 2 numbers given; give one, or one for each of ",
        ),
        ("net.py:Net", {"std": 0.0}, "std: 0.0: Input should be greater than 0"),
        ("net.py:Net", {"image_size": [1, 2, 3]}, "image_size: [1, 2, 3] given; give one number, or height and width"),
        ("net.py:Net", {"image_size": 28, "classes": ["a", "b"]}, "classes: 2 names given for 5 outputs"),
        ("net.py:Net", {"classes": "no.txt"}, "classes: no.txt cannot be read"),
        (
            "net.py:any_option",
            {"num_classes": 3, "pretrained": True},
            "num_classes: 3 given; fetched",
        ),
        (
            "net.py:needs",
            {"options": {"width": 3, "depth": 1}, "num_classes": 9, "image_size": 28},
            "num_classes: 9 given; net.needs gives 5",
        ),
        ("net.py:Net", {"weights": "a.pth", "pretrained": True}, "pretrained: weights are given too"),
        (
            "net.py:Net",
            {"pretrained": True},
            "weights are fetched for networks of timm and torchvision only",
        ),
        ("cifar_resnet20_see", {}, "did you mean 'cifar_resnet20_se' or "),
        ("cifar_resnet20", {"pretrained": True}, "cifar_resnet20 has no weights to fetch"),
        (
            "digits-resnet56-se",
            {"num_classes": 3},
            "is a checkpoint, which says how its network is made",
        ),
        ("timm:resnet19", {}, "unknown model 'resnet19'; did you mean 'resnet18'"),
        (
            "timm:test_resnet",
            {"options": {"cardinalty": 3}},
            "no option cardinalty; did you mean 'cardinality'?",
        ),
        ("torchvision:resnet19", {}, "unknown model 'resnet19'; did you mean 'resnet18'"),
        ("torchvision:resnet18", {"channels": 1}, "resnet18 of torchvision takes images of 3 channels only"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:torch.quantize_per_tensor:UserWarning")
def test_what_cannot_be_is_one_line(net, name, given, text):
    assert text in refused(name, **given)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_network_is_one_line(net):
    code = """
import torch
from torch import nn

def exported():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return torch.export.export(model, (torch.zeros(2, 3, 8, 8),)).module()
"""
    net.with_name("exported.py").write_text(code)
    assert "it is exported (torch.export), one graph" in refused("exported.py:exported", image_size=8)


def test_a_checkpoint_of_ours_is_a_network_like_any_other():
    opened = open_network("digits-resnet56-se")
    assert (opened.training, opened.data, opened.num_classes) == ("recorded", "digits", 10)
    assert opened.classes == tuple("0123456789")
    assert opened.sha256 == opened.checkpoint.sha256
    assert opened.assumptions() == []
    assert opened.untrained().weights.startswith("random")
    with pytest.raises(ModelInputError, match="3 given; digits-resnet56-se takes 1"):
        open_network("digits-resnet56-se", channels=3)


def test_a_network_of_ours_by_name_takes_the_size_of_cifar():
    opened = open_network("cifar_resnet11_se", options={"reduction": 8}, num_classes=3)
    assert opened.preprocessing.size == (32, 32)
    assert opened.spec == create_model("cifar_resnet11_se", reduction=8, num_classes=3).spec
    assert open_network("vit_small_patch16", image_size=16).preprocessing.size == (16, 16)


def test_a_network_with_random_weights_is_made_for_the_data():
    digits = DataFacts(Preprocessing(height=8, width=8, mean=(0.3,), std=(0.4,)), ("a", "b", "c"))
    ours = open_network("cifar_resnet11", data=digits)
    assert (ours.preprocessing, ours.classes, ours.spec.in_channels) == (digits.preprocessing, ("a", "b", "c"), 1)
    assert "image_size 8x8 (as in the data)" in ours.assumptions()
    theirs = open_network("timm:test_resnet", data=digits)
    assert (theirs.preprocessing.size, theirs.classes) == ((160, 160), ("a", "b", "c"))
    assert open_network("timm:test_resnet", data=digits, num_classes=4, image_size=32).classes is None


def test_classes_without_names_are_those_of_the_data(net):
    torch.save(open_network(f"{net}:Net", num_classes=2).model.state_dict(), "a.pth")
    opened = open_network(f"{net}:Net", weights="a.pth", data=DataFacts(classes=("dog", "cat")))
    assert opened.classes == ("cat", "dog")
    assert "classes cat, dog (those of the data in alphabetical order)" in opened.assumptions()
    assert open_network(f"{net}:Net", weights="a.pth", data=DataFacts(classes=("a", "b", "c"))).classes is None


def test_timm_says_what_its_networks_expect():
    opened = open_network("timm:test_resnet")
    scaling = {"height": 168, "width": 168, "fit": "cover", "interpolation": "bilinear"}  # 0.95 of the sides is seen
    shown = {"height": 160, "width": 160, "mean": (0.5,) * 3, "std": (0.5,) * 3, "scaling": scaling}
    assert opened.preprocessing.model_dump() == shown
    assert set(opened.origins.values()) == {"timm's record"}
    assert (opened.classes[0], opened.synsets[0]) == ("tench, Tinca tinca", "n01440764")
    smaller = open_network("timm:test_vit", image_size=32, channels=1, num_classes=3)
    assert (smaller.num_classes, smaller.classes, smaller.preprocessing.mean) == (3, None, (0.5,))


def test_torchvision_says_what_its_networks_expect():
    opened = open_network("torchvision:shufflenet_v2_x0_5", image_size=64)
    assert opened.preprocessing.mean == (0.485, 0.456, 0.406)
    assert (opened.classes[0], opened.synsets[0]) == ("tench", "n01440764")
    assert opened.origins["image_size"] == "as given"
    assert opened.origins["mean"] == "torchvision's record"


def test_what_a_network_of_ones_own_carries_with_it_is_used(net):
    assert open_network(f"{net}:of_timm").preprocessing.size == (160, 160)
    configured = open_network(f"{net}:Configured")
    assert (configured.preprocessing.size, configured.classes) == ((28, 28), ("cat", "dog"))
    assert configured.origins["image_size"] == "the network's config"


def test_pretrained_weights_are_those_of_timm(tmp_path, monkeypatch):
    """The download is replaced by a file."""
    import timm

    other = timm.create_model("test_resnet")
    path = tmp_path / "a.pth"
    torch.save(other.state_dict(), path)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: torch.load(path))
    opened = open_network("timm:test_resnet", pretrained=True, image_size=32, seed=1)
    assert torch.equal(opened.model.fc.weight, other.fc.weight)
    assert (opened.training, opened.weights) == ("loaded", "those of timm:test_resnet, fetched")
    assert not torch.equal(opened.untrained().model.fc.weight, other.fc.weight)


def test_pretrained_weights_are_those_of_torchvision(monkeypatch):
    from torchvision.models import shufflenet_v2_x0_5
    from torchvision.models._api import WeightsEnum

    other = shufflenet_v2_x0_5()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: other.state_dict())
    opened = open_network("torchvision:shufflenet_v2_x0_5", pretrained=True, image_size=32)
    assert torch.equal(opened.model.fc.weight, other.fc.weight)


def test_a_network_of_the_hub_is_made_from_its_own_record(tmp_path, monkeypatch):
    import timm

    other = timm.create_model("test_resnet", num_classes=2)
    torch.save(other.state_dict(), tmp_path / "a.pth")
    record = {**other.pretrained_cfg, "num_classes": 2, "label_names": ["cat", "dog"], "mean": [0.25] * 3}
    monkeypatch.setattr("timm.models._factory.load_model_config_from_hf", lambda *_, **__: (record, "test_resnet", {}))
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: torch.load(tmp_path / "a.pth"))
    opened = open_network("hf-hub:someone/animals", pretrained=True, image_size=32)
    assert torch.equal(opened.model.fc.weight, other.fc.weight)
    assert (opened.name, opened.classes, opened.preprocessing.mean) == ("animals", ("cat", "dog"), (0.25,) * 3)


def test_a_fetch_that_fails_is_one_line(monkeypatch):
    def lost(*_, **__):
        raise OSError("no\nanswer")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lost)
    assert "model: test_resnet cannot be made: OSError: no answer" in refused("timm:test_resnet", pretrained=True)


def test_names_of_classes_come_from_a_file(net, tmp_path):
    (tmp_path / "names.txt").write_text("ant\nbee\n\ncow\ndog\neel\n")
    opened = open_network(f"{net}:Net", classes=tmp_path / "names.txt", num_classes=5)
    assert opened.classes == ("ant", "bee", "cow", "dog", "eel")
    (tmp_path / "names.txt").write_text(json.dumps("ant") * 2)
    assert "1 name given for 5 outputs" in refused(f"{net}:Net", classes=tmp_path / "names.txt")
    assert "given twice: a" in refused(f"{net}:Net", classes=list("aabcd"))


def test_every_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("dia_models.networks.libraries.find_spec", lambda _: None)
    assert "test_resnet needs the package timm: pip install 'dia-analysis[timm]'" in refused("timm:test_resnet")


def test_the_network_is_the_users_own_class(net):
    assert isinstance(open_network(f"{net}:Net").model, nn.Module)
    assert type(open_network(f"{net}:Net").model).__name__ == "Net"


INSIDE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, size=80, classes=2):
        super().__init__()
        self.size, self.fc = size, nn.Linear(3, classes)

    def forward(self, x):
        assert x.shape[2:] == (self.size, self.size)
        return self.fc(x.mean((2, 3)))


def trained(num_classes=2):
    net = Net(classes=num_classes)
    net.load_state_dict({"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)})
    return net
"""


def test_weights_that_the_users_code_brings_are_no_random_ones(tmp_path):
    (tmp_path / "inside.py").write_text(INSIDE)
    for data in (None, DataFacts(classes=("a", "b", "c"))):  # it cannot be made for three classes
        opened = open_network(f"{tmp_path / 'inside.py'}:trained", data=data)
        assert (opened.training, opened.num_classes) == ("loaded", 2)
        assert opened.weights.startswith("those that ")
        assert opened.untrained() is None
    random = open_network(f"{tmp_path / 'inside.py'}:Net", seed=3)
    assert (random.training, random.weights) == ("none", "random, seed 3")
    assert random.preprocessing.size == (80, 80)
    with pytest.raises(ModelInputError, match="takes no images of 90x90 .*; it takes 80x80 with 3 channels"):
        open_network(f"{tmp_path / 'inside.py'}:Net", image_size=90)


def test_no_weights_are_fetched_that_were_not_asked_for(monkeypatch):
    def refuse(*given, **more):
        raise AssertionError("a download")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    opened = open_network("torchvision:lraspp_mobilenet_v3_large", image_size=32)
    assert (opened.num_classes, opened.weights) == (None, "random, seed 0")
