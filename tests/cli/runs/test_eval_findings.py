"""dia-train eval on many findings: findings go to outputs by name, with torchxrayvision's range and scores."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from dia_models import open_network
from dia_models.data import open_data
from tests.support.commands import failure, train

GIVEN = ["--model", "net.py:DenseNet", "--image-size", "8", "--data", "labels:findings.csv"]
NET = '''
import torch
from torch import nn


class DenseNet(nn.Module):
    """As torchxrayvision's: one channel from -1024 to 1024, names of the outputs, scores where it has op_threshs."""

    targets = ["Mass", "", "Edema"]

    def __init__(self, op_threshs=None, sign=1.0):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 4, stride=4)
        nn.init.constant_(self.conv.weight, sign / 16 / 1024)
        nn.init.zeros_(self.conv.bias)
        self.register_buffer("op_threshs", None if op_threshs is None else torch.full((3,), op_threshs))

    def forward(self, x):
        out = self.conv(x).mean((2, 3))
        return out if self.op_threshs is None else torch.sigmoid(out) / 2 + self.op_threshs / 2
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twenty images with a mass, which are bright, and twenty without; edema is told by nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    random, rows = np.random.default_rng(0), ["Path,Sex,Edema,Mass,Fracture"]
    for i in range(40):
        mean = 150 + 20 * (i % 2) + random.normal(0, 10)
        Image.fromarray(np.full((8, 8), int(mean), np.uint8)).save(tmp_path / f"p{i // 2}_{i}.png")
        rows.append(f"p{i // 2}_{i}.png,F,{'' if i % 3 else 1},{i % 2}.0,{-1 if i == 0 else ''}")
    (tmp_path / "findings.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def evaluated(capsys, *more):
    assert train("eval", *GIVEN, *more) == 0
    return capsys.readouterr()


@pytest.mark.filterwarnings("ignore:findings.csv. 1 uncertain label")
def test_findings_go_to_outputs_by_name(folder, capsys):
    printed = evaluated(capsys, "--json", "--out", "out", "--group-pattern", r"p(\d+)_")
    document = json.loads(printed.out)
    assert list(document["findings"]) == ["Edema", "Mass"]
    assert document["unmatched"] == [
        "Labels that no output is named for, left out: Fracture.",
        "Outputs without labels, left out: output 1.",
    ]
    assert document["scores"] == "the sigmoid of the outputs"
    assert document["grouping"] == r"by p(\d+)_ in the images' names"
    with (folder / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    area = roc_auc_score([int(row["label_Mass"]) for row in rows], [float(row["score_Mass"]) for row in rows])
    assert document["findings"]["Mass"]["auroc"]["value"] == pytest.approx(area)
    assert document["findings"]["Mass"]["patients"] == 20
    pixels = np.asarray(Image.open(folder / rows[3]["path"])).mean()
    logit = 2 * pixels / 255 - 1  # the range is -1024 to 1024, the weights sum to 1 / 1024
    assert float(rows[3]["score_Mass"]) == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
    assert (folder / "out" / "auroc-net-DenseNet.png").is_file()


@pytest.mark.filterwarnings("ignore:findings.csv. 1 uncertain label")
def test_two_networks_and_scores_that_are_probabilities(folder, capsys):
    more = ["--model", "wrong=net.py:DenseNet", "--set", "wrong:sign=-1.0", "--set", "op_threshs=0.5"]
    text = evaluated(capsys, *more).out
    assert "Scores: the outputs, which are probabilities already" in text
    assert "Mass: AUROC 0." in text
    assert "lies below 0.5 as a whole" in text
    assert "no patient IDs; each image is treated as one patient" in text
    assert "corrected by Holm's method for 2 of them" in text


def test_its_images_are_in_torchxrayvisions_range(folder):
    shown = open_network("net.py:DenseNet").preprocessing
    assert (shown.size, shown.mean) == ((224, 224), (0.5,))
    ends = shown(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2, 1)).flatten()
    torch.testing.assert_close(ends, torch.tensor([-1024.0, 1024.0]))


@pytest.mark.filterwarnings("ignore:findings.csv. 1 uncertain label")
def test_what_cannot_be_told(folder, capsys):
    (folder / "names.txt").write_text("A\nB\nC\n")
    error = failure(capsys, train("eval", *GIVEN, "--classes", "names.txt", "--uncertain", "positive"))
    assert "has labels for Edema, Mass, Fracture; the network knows A, B, C" in error
    source = open_data("labels:findings.csv", "any", uncertain="negative")
    assert source.rows[0] == (1, 0, 0)
