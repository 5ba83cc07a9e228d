"""torchrun: two processes train what one does with the same batches, and only the first one writes and speaks."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import cli.common.main
import cli.train
from dia_models import Checkpoint
from dia_models.data import open_data
from dia_models.runs.run import fit
from dia_models.training.batches import Batches
from dia_models.training.config import RunConfig

BASE = ["fit", "--data", "digits", "--set", "precision=float32", "--set", "batch_size=64", "--set", "padding=1"]
# 129 images are two batches of 64 and one of a single image, of which the second process gets none.
PLAIN = [*BASE, "--set", "batch_norm=false", "--set", "augment=none", "--set", "epochs=2", "--set", "schedule=step"]
PLAIN += ["--set", "training_images=129", "--set", "learning_rate=0.01", "--set", "validation=0.05"]
LSTM = [*BASE, "--model", "cifar_resnet20_dia_lstm", "--set", "training_images=129", "--set", "epochs=2"]
LSTM += ["--set", "ema=0.5", "--set", "clip=1", "--keep-every", "1"]
NAN = [*BASE, "--model", "cifar_resnet11", "--set", "training_images=129", "--set", "learning_rate=1e30"]

WORKER = """
import json, pathlib, sys, torch
import cli.common.main, cli.train
from dia_models.training import distributed
from dia_models.runs import training_run
from dia_models.data import open_data
from dia_models.training.batches import Batches

out = pathlib.Path(sys.argv[1])
rank = 0

def remember(self, model, nan_epoch, finish=training_run.TrainingRun.finish):
    global rank
    rank = distributed.rank()
    torch.save(model.state_dict(), out / f"{self.directory.name}-{rank}.pt")
    if self.directory.name == "plain":
        images = open_data("digits", "train").take(torch.arange(129))
        torch.save(list(Batches(images, 64, 5, "crop", 1)), out / f"batches-{rank}.pt")
    return finish(self, model, nan_epoch)

training_run.TrainingRun.finish = remember
with distributed.process_group(torch.device("cpu")):
    for arguments in json.loads(sys.argv[2]):
        code = cli.common.main.run(cli.train.app, arguments)
        assert code == 0, code
"""


class Cut(Callback):
    """A power cut in the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1:
            raise KeyError


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What two processes do in one start of them, and what one does."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "worker.py").write_text(WORKER)
    jobs = [
        [*PLAIN, "--model", "cifar_preresnet11", "--out", str(folder / "plain")],
        [*LSTM, "--out", str(folder / "lstm")],
        ["fit", "--resume", "--out", str(folder / "lstm"), "--json"],
        [*NAN, "--out", str(folder / "nan")],
        ["fit", "--resume", "--out", str(folder / "handed")],
    ]
    assert (
        cli.common.main.run(cli.train.app, [*PLAIN, "--model", "cifar_preresnet11", "--out", str(folder / "alone")])
        == 0
    )
    with pytest.raises(KeyError):
        fit(RunConfig.read(folder / "alone"), folder / "handed", torch.device("cpu"), callbacks=(Cut(),))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [*launch, str(folder / "worker.py"), str(folder), json.dumps(jobs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


def rows(directory):
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights(directory, name="model"):
    return Checkpoint.read(directory / f"{name}.safetensors").weights


@pytest.mark.parametrize("name", ["plain", "handed"])
def test_two_processes_train_what_one_does(out, name):
    """Without batch norms, which see a process' share of a batch alone; also where one process began the run."""
    one, two = weights(out / "alone"), weights(out / name)
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    for alone, shared in zip(rows(out / "alone"), rows(out / name), strict=True):
        for column in ("learning_rate", "train_loss", "val_loss"):
            assert float(alone[column]) == pytest.approx(float(shared[column]), abs=1e-4)
        for column in ("train_accuracy", "val_accuracy"):
            assert float(alone[column]) == pytest.approx(float(shared[column]), abs=1e-7)
    assert float(rows(out / "alone")[1]["train_loss"]) < float(rows(out / "alone")[0]["train_loss"])


@pytest.mark.parametrize("name", ["plain", "lstm"])
def test_the_processes_end_with_the_same_weights_and_statistics(out, name):
    first, second = (torch.load(out / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0, atol=0)
    saved = weights(out / name)
    assert all(torch.equal(saved[key], value) for key, value in first.items())


def test_a_shared_module_and_batch_norms_train_in_two_processes(out):
    table = rows(out / "lstm")
    assert len(table) == 2
    assert float(table[1]["train_loss"]) < float(table[0]["train_loss"])
    assert len(list((out / "lstm").glob("epoch-*"))) == 3


def test_a_loss_that_is_not_finite_ends_both(out):
    assert json.loads((out / "nan" / "result.json").read_text())["outcome"] == "nan"


def test_only_the_first_process_speaks(out):
    said, noted = (out / "stdout").read_text(), (out / "stderr").read_text()
    assert said.count("cifar_preresnet11 on 360 test images of digits") == 2  # of two runs
    assert said.count('"schema": "dia.fit/1"') == 1
    assert noted.count("epoch 2/2") == 3  # of three runs
    assert noted.count("is finished: there is nothing left to train") == 1
    assert "site-packages" not in noted  # no warning of a library
    assert "warning" not in noted


def test_the_shares_are_the_batches_of_one_process(out):
    images = open_data("digits", "train").take(torch.arange(129))
    whole = list(Batches(images, 64, 5, "crop", 1))
    first, second = (torch.load(out / f"batches-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert len(first) == len(second) == 3
    for (pixels, labels), (p0, l0), (p1, l1) in zip(whole, first, second, strict=True):
        assert torch.equal(labels[::2], l0)
        assert torch.equal(labels[1::2], l1)
        assert torch.equal(pixels[::2], p0)
        assert torch.equal(pixels[1::2], p1) or len(labels) == 1
    assert len(second[2][1]) == 0
    assert torch.equal(second[2][0], first[2][0])  # an image to compute on, without a label


def test_one_process_needs_nothing(monkeypatch):
    from dia_models.training import distributed

    monkeypatch.delenv("RANK", raising=False)
    with distributed.process_group(torch.device("cpu")) as device, distributed.rank_zero_first():
        assert device == torch.device("cpu")
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        values = torch.ones(2)
        assert distributed.all_reduce(values) is values
        distributed.barrier()
