"""Folded networks in files: read by plain torch without this library, or as an ordinary checkpoint."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dia_models import ModelInputError, attach, fold_attention, load, open_network
from dia_models.networks.folded_files import save_folded
from tests.support.static import batches, settled, with_means

NET = '''
from torch import nn


class SE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.Sigmoid()

    def forward(self, x):
        return x * self.act(self.fc(x.mean((2, 3))))[:, :, None, None]


class Net(nn.Module):
    """One gate that goes into a norm without weights, one between two curves, one whose product stands in the code."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)
        self.se, self.se2, self.head = SE(), SE(), nn.Linear(4, 3)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.Sigmoid())

    def forward(self, x):
        x = self.se2(nn.functional.silu(self.se(self.norm(self.conv(x)))))
        x = nn.functional.silu(x)
        return self.head((x * self.squeeze(x)[:, :, None, None]).mean((2, 3)))
'''
PAGE = Path(__file__).parents[3] / "docs" / "fold-and-share.md"
LOADED = """
import sys
import torch
{lines}
torch.save(model.eval()(torch.load("images.pt")), "outputs.pt")
assert not any(name.startswith(("dia_", "cli")) for name in sys.modules)
"""


def loading_lines():
    """The lines of the page that load a folded network in plain torch."""
    (lines,) = re.findall(r'```python title="load_folded.py"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return lines


def test_plain_torch_loads_it_by_the_lines_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    opened = open_network(str(tmp_path / "net.py") + ":Net", image_size=8)
    model = settled(opened.model)
    images = batches(classes=3)
    expected = with_means(model, ["se.act", "se2.act", "squeeze.3"], images[0][0])
    folding = fold_attention(model, images, images, max_accuracy_drop=1.0)
    (tmp_path / "folded").mkdir()
    save_folded(tmp_path / "folded", folding.network, opened, "digits")
    assert json.loads((tmp_path / "folded" / "fold.json").read_text()) == {
        "schema": "dia.fold/1",
        "network": opened.source,
        "identity": ["se"],
        "scale": ["se2"],
        "gate": ["squeeze"],
        "affine": ["norm.weight", "norm.bias"],
    }
    torch.save(images[0][0], tmp_path / "images.pt")
    lines = loading_lines().replace("small_se", "net").replace("SmallSE", "Net")
    assert sum(1 for line in lines.splitlines() if line and not line.startswith(("import", "from"))) <= 10
    subprocess.run([sys.executable, "-c", LOADED.format(lines=lines)], check=True, env={"PYTHONPATH": str(tmp_path)})
    outputs = torch.load(tmp_path / "outputs.pt")
    assert float((outputs - expected).detach().abs().max()) <= 1e-5 * float(expected.abs().max())


def test_ours_becomes_a_checkpoint_of_the_plain_network(tmp_path):
    opened = open_network("cifar_resnet11_se", num_classes=4, image_size=8)
    images = batches()
    folding = fold_attention(settled(opened.model), images, images, max_accuracy_drop=1.0)
    save_folded(tmp_path, folding.network, opened, "digits")
    again = load(tmp_path / "model.safetensors")
    assert again.spec.name == "cifar_resnet11"
    with torch.no_grad():
        assert torch.equal(again(images[0][0]), folding.model(images[0][0]))


def test_attached_attention_that_is_left_is_refused(tmp_path):
    opened = open_network("timm:test_resnet", num_classes=4, image_size=32)
    model, images = settled(attach(opened.model, "se")), batches(size=32)
    some = fold_attention(model, images, images, layers=["1.1"], max_accuracy_drop=1.0)
    with pytest.raises(ModelInputError, match="some of the attached attention is left"):
        save_folded(tmp_path, some.network, opened, "digits")
    assert not list(tmp_path.iterdir())
    every = fold_attention(model, images, images, max_accuracy_drop=1.0)
    save_folded(tmp_path, every.network, opened, "digits")
    assert json.loads((tmp_path / "fold.json").read_text())["identity"] == []
