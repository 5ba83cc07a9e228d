"""A loss that is no longer a finite number ends a run; it is a result, not a crash."""

import csv
import json
from math import isnan

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import cli.common.main
import cli.train
from dia_models import Checkpoint
from dia_models.runs.run import fit
from dia_models.training.config import RunConfig
from dia_models.training.module import NotFiniteError
from dia_models.training.recipe import load_recipe

CPU = torch.device("cpu")
FIT = ["fit", "--model", "cifar_resnet11", "--data", "digits", "--set", "training_images=128", "--set", "batch_size=64"]
DIVERGING = ["--set", "learning_rate=1e30", "--set", "schedule=step", "--set", "epochs=4", "--set", "clip=0"]


def config(**changes):
    recipe = load_recipe(
        "paper",
        **{"epochs": 4, "batch_size": 64, "augment": "none", "training_images": 128, "validation": 0.1, **changes},
    )
    return RunConfig(model="cifar_resnet11", data="digits", recipe_name="paper", recipe=recipe)


class Poison(Callback):
    """Makes one weight infinite before the third epoch (or before another)."""

    def __init__(self, epoch=2):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            pl_module.model.classifier.weight.data[0, 0] = float("inf")


def rows(directory):
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_run_ends_with_the_epochs_before(tmp_path):
    result = fit(config(), tmp_path, CPU, callbacks=(Poison(),))
    assert (result.outcome, result.nan_epoch) == ("nan", 3)
    assert isnan(result.last.accuracy)
    assert isnan(result.last.loss)
    assert [row["epoch"] for row in rows(tmp_path)] == ["0", "1"]
    saved = Checkpoint.read(tmp_path / "model.safetensors")
    assert saved.info.metrics == {}
    assert saved.weights["classifier.weight"][0, 0].isinf()
    document = json.loads((tmp_path / "result.json").read_text())
    assert (document["schema"], document["outcome"], document["nan_epoch"]) == ("dia.fit/1", "nan", 3)
    assert (document["last"]["test_accuracy"], document["last"]["test_loss"]) == (None, None)
    assert document["images"] == 360


def test_the_best_network_of_the_epochs_before_is_tested(tmp_path):
    result = fit(config(), tmp_path, CPU, callbacks=(Poison(),))
    assert result.best is not None
    best = Checkpoint.read(tmp_path / "best.safetensors")
    assert best.weights["classifier.weight"].isfinite().all()
    assert best.info.metrics["test_accuracy"] == result.best.accuracy
    assert json.loads((tmp_path / "result.json").read_text())["best"]["test_accuracy"] == result.best.accuracy


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"clip": 1.0}, {"precision": "bfloat16"}], ids=str)
def test_in_the_first_epoch_nothing_is_left_to_test(tmp_path, changes):
    result = fit(config(**changes), tmp_path, CPU, callbacks=(Poison(0),))
    assert (result.outcome, result.nan_epoch, result.best) == ("nan", 1, None)
    assert not (tmp_path / "metrics.csv").exists()
    assert not (tmp_path / "best.safetensors").exists()
    assert (tmp_path / "model.safetensors").exists()


def test_a_learning_rate_that_is_too_high(tmp_path):
    result = fit(config(learning_rate=1e30), tmp_path, CPU)
    assert result.outcome == "nan"


def test_a_run_that_is_resumed_ends_in_the_same_epoch(tmp_path):
    class Cut(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise KeyError("power")

    with pytest.raises(KeyError, match="power"):
        fit(config(), tmp_path / "cut", CPU, callbacks=(Poison(), Cut()))
    result = fit(config(), tmp_path / "cut", CPU, resume=True, callbacks=(Poison(),))
    assert result.nan_epoch == 3
    assert [row["epoch"] for row in rows(tmp_path / "cut")] == ["0", "1"]


def test_another_error_is_no_such_result(tmp_path):
    class Broken(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine") as caught:
        fit(config(), tmp_path, CPU, callbacks=(Broken(),))
    assert not isinstance(caught.value, NotFiniteError)
    assert not (tmp_path / "result.json").exists()


def run(*arguments):
    return cli.common.main.run(cli.train.app, list(map(str, arguments)))


def test_the_command_says_it_in_a_sentence_and_ends_well(tmp_path, capsys):
    assert run(*FIT, "--recipe", "paper", *DIVERGING, "--out", tmp_path / "run") == 0
    out, err = capsys.readouterr()
    assert "cifar_resnet11 on digits: training stopped in epoch " in out
    assert len(out.splitlines()) == 1
    assert "nan" not in err
    assert run("fit", "--resume", "--out", tmp_path / "run", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["outcome"] == "nan"
    assert err.count("\n") == 1
    assert "is finished: there is nothing left to train" in err


def test_resuming_a_finished_run_gives_its_result_again(tmp_path, capsys):
    assert run(*FIT, "--set", "epochs=1", "--out", tmp_path / "run", "--json") == 0
    first = capsys.readouterr().out
    (tmp_path / "run" / "last.ckpt").unlink()  # nothing else is needed
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert run("fit", "--resume", "--out", tmp_path / "run", "--json") == 0
    out, err = capsys.readouterr()
    assert out == first
    assert json.loads(out)["outcome"] == "finished"
    assert json.loads(out)["nan_epoch"] is None
    assert f"{tmp_path / 'run'} is finished" in err
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_the_result_that_is_read_is_the_one_that_was_given(tmp_path):
    given = fit(config(epochs=1), tmp_path, CPU)
    assert fit(config(epochs=1), tmp_path, CPU, resume=True) == given
    assert given.last.per_class_accuracy
