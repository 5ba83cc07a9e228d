"""What an error calls the value that caused it: an option or argument of the command that was given."""

import logging

import pytest
import torch

from dia_models.training.recipe import load_recipe
from dia_models.training.trainer import make_trainer
from tests.support.commands import SE, analyze, failure, train


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        (analyze, ("gradcam", "--ckpt", SE, "--images", 361), "--images: 361 images asked for"),
        (analyze, ("gradcam", "--ckpt", SE, "/nonexistent.png"), "IMAGES: there is no file or folder /nonexistent.png"),
        (
            analyze,
            ("gradients", "--model", "cifar_resnet20_se", "--set", "reduction=3"),
            "--set: reduction 3 must divide",
        ),
        (analyze, ("gradients", "--model", "uvit_tiny"), "--model: uvit_tiny is a network for noise prediction"),
        (analyze, ("gradients", "--run", "."), "--run: . is no finished run"),
        (analyze, ("correlation", "--ckpt", ""), "--ckpt: no name given"),
        (analyze, ("correlation", "--ckpt", SE, "--data", "/some/folder"), "is given as folder:/some/folder"),
        (train, ("generate", "--ckpt", "digits-resnet56-es", "--out", "made"), "--ckpt: unknown checkpoint"),
        (train, ("models", "nothing"), "PATTERN: no network is called 'nothing'"),
        (train, ("sweep", "table11", "--data-dir", "/nonexistent"), "--data-dir: chest-xray is not in /nonexistent"),
        (train, ("sweep", "table11", "--set", "epoch=1"), "--set: unknown option 'epoch'; did you mean 'epochs'?"),
        (train, ("fit", "--from", "nothing"), "--from: unknown checkpoint 'nothing'"),
        (train, ("fit", "--resume", "--out", __file__), "--resume: "),
    ],
)
def test_an_error_names_an_option_of_the_command(run, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = failure(capsys, run(*arguments))
    assert message in said
    assert "unexpected" not in said


def test_lightning_is_silent_when_a_run_begins(tmp_path):
    logger = logging.getLogger("lightning.pytorch")
    logger.setLevel(logging.INFO)
    make_trainer(load_recipe("one_cycle"), tmp_path, torch.device("cpu"), "float32", (), validates=False)
    assert logger.level == logging.WARNING


def test_resuming_what_is_no_store_names_the_option_that_gave_it(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    given = ("capture", "--ckpt", SE, "--images", 4, "--resume", "--out", tmp_path)
    assert f"--out: {tmp_path} is damaged or no capture store" in failure(capsys, analyze(*given))


def test_recipes_are_shown_as_set_takes_them(capsys):
    assert train("recipes") == 0
    text = capsys.readouterr().out
    assert "milestones=[0.4,0.6,0.8]" in text
    assert "(" not in text.partition("Sweeps")[0].partition(":")[2]
