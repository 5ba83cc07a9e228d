"""What a run shows while it trains: the bar, the lines, TensorBoard."""

import csv
import io
import logging
import sys

import pytest
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

import cli.common.main
import cli.runs.fit
import cli.train
from cli.common.console import progress_bar
from cli.runs.fit import _fitting_analyses
from dia_models import ModelSpec
from dia_models.training.progress import RunProgress

FIT = ["fit", "--model", "cifar_resnet11", "--data", "digits", "--set", "training_images=100", "--set", "batch_size=64"]


def run(*arguments):
    return cli.common.main.run(cli.train.app, list(map(str, arguments)))


def rows(directory):
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def scalars(directory):
    """The steps and values of each curve, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard")).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")
def test_tensorboard_has_the_rows_of_the_table(tmp_path):
    out = tmp_path / "run"
    assert run(*FIT, "--set", "epochs=2", "--tensorboard", "--out", out) == 0
    table, curves = rows(out), scalars(out)
    assert {"train_loss", "val_accuracy", "learning_rate", "seconds"} <= curves.keys()
    for name, values in curves.items():
        assert values == {epoch: pytest.approx(float(table[epoch][name]), rel=1e-6) for epoch in (0, 1)}


def test_lightning_tells_no_tips(tmp_path, caplog):
    """Its import, which comes late, sets it to tell them."""
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    assert run(*FIT, "--set", "epochs=1", "--out", tmp_path / "run") == 0
    assert not [record for record in caplog.records if record.name.startswith("lightning")]
    assert logging.getLogger("lightning.pytorch").level == logging.WARNING


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*")
def test_a_resumed_run_goes_on_in_tensorboard(tmp_path, monkeypatch):
    out = tmp_path / "run"

    def cut(self, trainer, *_, before=RunProgress.on_train_batch_end):
        if trainer.current_epoch == 1:
            raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "on_train_batch_end", cut)
        assert run(*FIT, "--set", "epochs=3", "--tensorboard", "--out", out) == 1
    assert run("fit", "--resume", "--tensorboard", "--out", out) == 0
    assert list(scalars(out)["train_loss"]) == [0, 1, 2]


def test_without_tensorboard_nothing_is_written_for_it(tmp_path):
    assert run(*FIT, "--set", "epochs=1", "--out", tmp_path / "run") == 0
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert (tmp_path / "run" / "metrics.csv").exists()


def test_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert run(*FIT, "--tensorboard", "--out", tmp_path / "run") == 1
    err = capsys.readouterr().err
    assert err == "error: --tensorboard: tensorboard is not installed; pip install 'dia-analysis[tracking]'\n"
    assert not (tmp_path / "run").exists()


def test_the_bar_spans_the_whole_run(tmp_path, monkeypatch):
    """Drawn on a terminal; a resumed run starts where the first part ended, and nothing of it stays on the screen."""
    bars, seen = [], []

    def bar():
        terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
        bars.append(Progress(*progress_bar().columns, console=terminal))
        return bars[-1]

    def watch(self, trainer, *_, before=RunProgress.on_train_batch_end):
        before(self, trainer, *_)
        task = self.bar.tasks[0]
        seen.append((task.description, task.completed, task.total))
        if trainer.current_epoch == stop:
            raise KeyError

    monkeypatch.setattr(cli.runs.fit, "progress_bar", bar)
    monkeypatch.setattr(RunProgress, "on_train_batch_end", watch)
    stop, out = 1, tmp_path / "run"
    assert run(*FIT, "--set", "epochs=3", "--out", out) == 1
    stop = None
    assert run("fit", "--resume", "--out", out) == 0
    first = [("epoch 1/3", 1, 6), ("epoch 1/3", 2, 6), ("epoch 2/3", 3, 6)]
    again = [("epoch 2/3", 3, 6), ("epoch 2/3", 4, 6), ("epoch 3/3", 5, 6), ("epoch 3/3", 6, 6)]
    assert seen == first + again
    for drawn in bars:
        assert "images/s" in drawn.console.file.getvalue()
        assert drawn.tasks == []
        assert not drawn.live.is_started
    assert any(isinstance(column, TimeRemainingColumn) for column in progress_bar().columns)


def test_no_bar_is_drawn_where_there_is_no_terminal(tmp_path, capsys):
    assert run(*FIT, "--set", "epochs=2", "--out", tmp_path / "run") == 0
    err = capsys.readouterr().err
    assert "\x1b" not in err
    lines = err.splitlines()
    assert lines[0].startswith("epoch 1/2: loss ")
    assert lines[1].startswith("epoch 2/2: loss ")
    assert lines[1].endswith("images/s")


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("cifar_resnet11", ["gradcam", "gradients"]),
        ("cifar_resnet11_se", ["gradcam", "gradients"]),  # one layer a stage: nothing to correlate
        ("cifar_resnet20_se", ["correlation"]),
        ("resnet18_dia_lstm", ["correlation"]),
        ("vit_small_patch16", ["correlation"]),  # its self-attention
    ],
)
def test_the_analyses_that_are_suggested_have_something_to_show(name, commands):
    assert _fitting_analyses(ModelSpec(name=name)) == commands
