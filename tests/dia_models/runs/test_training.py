"""Runs: they learn, resume to the same weights after a kill, and refuse to mix."""

import json
import signal
import time

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from dia_models import Checkpoint, ModelInputError, load
from dia_models.classification.evaluation import evaluate
from dia_models.classification.training import ClassifierTraining
from dia_models.data import Batch, Preprocessing, open_data
from dia_models.runs.run import fit, kept_epochs
from dia_models.training.batches import Batches, epoch_seed
from dia_models.training.recipe import list_recipes, load_recipe
from tests.support import forked
from tests.support.runs import CPU, config, rows

pytestmark = pytest.mark.numeric


def test_a_run_learns_and_leaves_a_checkpoint_that_scores_the_same(tmp_path):
    result = fit(config(epochs=6), tmp_path / "run", CPU)
    assert result.last.accuracy > 0.4  # four times what guessing gives
    assert result.best is not None
    checkpoint = Checkpoint.read(tmp_path / "run" / "model.safetensors")
    info, test = checkpoint.info, open_data("digits", "test")
    assert (info.data, info.seed, info.model.name) == ("digits", 3, "cifar_resnet11_dia_lstm")
    assert info.classes == tuple("0123456789")
    assert info.recipe["epochs"] == 6
    again = evaluate(checkpoint.build(), test.batches(range(len(test)), 64, (8, 8), 1), info.preprocessing, 10, CPU)
    assert again.accuracy == pytest.approx(info.metrics["test_accuracy"], abs=1e-6)
    assert again.accuracy == pytest.approx(result.last.accuracy, abs=1e-6)
    table = rows(tmp_path / "run")
    assert [row["epoch"] for row in table] == list("012345")
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])
    assert json.loads((tmp_path / "run" / "result.json").read_text())["last"]["test_accuracy"] == result.last.accuracy


INTERRUPTED = """
import cli.train, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.train.main()
"""


def test_an_interrupt_says_how_to_go_on_and_ends_with_130(tmp_path):
    command = ("fit", "--model", "cifar_resnet29", "--data", "digits", "--out", "run")
    process = forked.Process(INTERRUPTED, *command, folder=tmp_path)
    while not (tmp_path / "run" / "metrics.csv").exists():
        assert process.code is None
        time.sleep(0.01)
    process.signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = process.err.read_text()
    assert "interrupted; to continue: dia-train fit --resume --out run" in said
    assert "Traceback" not in said


def test_without_validation_images_there_is_no_best_network(tmp_path):
    result = fit(config(epochs=1).model_copy(update={"recipe": NO_VALIDATION}), tmp_path / "run", CPU)
    assert result.best is None
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert "val_loss" not in rows(tmp_path / "run")[0]


NO_VALIDATION = load_recipe("one_cycle", epochs=1, batch_size=256, augment="none", validation=0)


def test_the_seed_decides_the_weights(tmp_path):
    weights = []
    for run, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(config(epochs=1, seed=seed), tmp_path / run, CPU)
        weights.append(load(tmp_path / run / "model.safetensors").classifier.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_run_can_start_from_a_checkpoint(tmp_path):
    fit(config(epochs=4), tmp_path / "first", CPU)
    start = tmp_path / "first" / "model.safetensors"
    again = config(epochs=1, learning_rate=1e-6).model_copy(update={"start_from": str(start)})
    result = fit(again, tmp_path / "second", CPU)
    first, second = Checkpoint.read(start), Checkpoint.read(tmp_path / "second" / "model.safetensors")
    assert second.info.recipe["start_from"] == first.sha256
    assert result.last.accuracy > 0.2  # twice what guessing gives: training from nothing gives a tenth
    torch.testing.assert_close(
        second.weights["classifier.weight"], first.weights["classifier.weight"], atol=1e-4, rtol=0
    )


def test_a_directory_in_use_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ModelInputError, match="exists and is not empty; choose another directory, or resume"):
        fit(config(), tmp_path, CPU)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_resuming_needs_a_run_of_the_same_configuration(tmp_path):
    with pytest.raises(ModelInputError, match="holds no run"):
        fit(config(), tmp_path / "none", CPU, resume=True)
    fit(config(epochs=1), tmp_path / "run", CPU)
    with pytest.raises(ModelInputError, match="is a run with another seed"):
        fit(config(epochs=1, seed=9), tmp_path / "run", CPU, resume=True)


def test_one_epoch_shows_every_image_once_in_an_order_of_its_own():
    images = open_data("digits", "train")
    seen = [[labels for _, labels in Batches(images, 100, epoch_seed(0, epoch))] for epoch in (0, 0, 1)]
    assert [len(part) for part in seen[0]] == [100] * 14 + [37]
    first, again, other = (torch.cat(parts) for parts in seen)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first.sort().values, images.labels.sort().values)


def rates(recipe_name, epochs, images=256, **changes):
    """The learning rate of every step."""
    recipe = load_recipe(recipe_name, epochs=epochs, batch_size=128, **changes)
    plain = Preprocessing(height=8, width=8, mean=(0.0,), std=(1.0,))
    training = ClassifierTraining(torch.nn.Linear(1, 1), recipe, plain, images, 0)
    made = training.configure_optimizers()
    optimizer, plan = made["optimizer"], made["lr_scheduler"]
    assert plan["interval"] == "step"
    seen = []
    for _ in range(epochs * training.steps_per_epoch):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan["scheduler"].step()
    return seen


@pytest.mark.parametrize(
    ("epochs", "milestones", "decay", "boundaries"),
    [
        (180, [1 / 3, 2 / 3], 0.1, (60, 120)),
        (6, [1 / 3, 2 / 3], 0.1, (2, 4)),
        (164, [81 / 164, 122 / 164], 0.1, (81, 122)),  # PreResNet164
        (200, [0.4, 0.6, 0.8], 0.2, (80, 120, 160)),  # WRN52-4
        (300, [0.5, 0.75], 0.1, (150, 225)),  # ResNeXt101
    ],
)
def test_the_papers_schedules_can_be_said(epochs, milestones, decay, boundaries):
    seen = rates("paper", epochs, milestones=milestones, decay=decay)
    expected = [0.1 * decay ** sum(epoch >= boundary for boundary in boundaries) for epoch in range(epochs)]
    assert seen == pytest.approx([rate for rate in expected for _ in range(2)])  # two steps an epoch


def test_a_warm_up_rises_in_a_line_to_the_learning_rate_and_leaves_the_rest_as_it_is():
    warm = rates("paper", 6, warmup=0.25)  # 3 of the 12 steps
    assert warm[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert warm[4:] == pytest.approx(rates("paper", 6)[4:])


def test_the_cosine_is_that_of_torch_after_the_warm_up():
    seen = rates("paper", 10, schedule="cosine", warmup=0.2)  # 4 of the 20 steps
    assert seen[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 16)
    for rate in seen[4:]:
        assert rate == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("steps", [5, 6, 10, 40, 101])
def test_one_cycle_is_that_of_torch(steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=steps, pct_start=0.25, cycle_momentum=False
    )
    seen = rates("one_cycle", steps, images=1, learning_rate=0.1)
    for rate in seen:
        assert rate == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        if reference.last_epoch < steps - 1:
            reference.step()
    assert max(seen) > 0.05
    assert seen[-1] < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_one_cycle_of_very_few_steps_starts_at_the_top(steps):
    seen = rates("one_cycle", steps, images=1, learning_rate=0.1)
    assert seen[0] == pytest.approx(0.1)
    assert steps == 1 or seen[-1] == pytest.approx(4e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "unknown option 'epoch'; did you mean 'epochs'"),
        ({"epochs": 0}, "epochs=0: Input should be greater than or equal to 1"),
        ({"epochs": "many"}, "epochs='many': Input should be a valid integer"),
        ({"schedule": "linear"}, "schedule='linear': Input should be 'step', 'one_cycle' or 'cosine'"),
        ({"validation": 1.0}, "validation=1.0: Input should be less than 1"),
        ({"label_smoothing": 1}, "label_smoothing=1: Input should be less than 1"),
        ({"clip": -1}, "clip=-1: Input should be greater than or equal to 0"),
        ({"clip": float("nan")}, "clip=nan: Input should be"),
        ({"learning_rate": float("inf")}, "learning_rate=inf: Input should be a finite number"),
        ({"ema": 1}, "ema=1: Input should be less than 1"),
        ({"compile": "perhaps"}, "compile='perhaps': Input should be a valid boolean"),
        ({"training_images": 0}, "training_images=0: Input should be greater than or equal to 1"),
        ({"optimizer": "adam"}, "optimizer='adam': Input should be 'sgd' or 'adamw'"),
        ({"milestones": [0.5, 0.25]}, r"milestones=\[0.5, 0.25\]: each milestone must be later than the one before"),
        ({"milestones": [60, 120]}, "milestones.0=60: Input should be less than 1"),
        ({"schedule": "one_cycle", "warmup": 0.1}, "warmup=0.1: the one_cycle schedule has a warm-up of its own"),
        ({"momentum": 0, "nesterov": True}, "nesterov=True: it needs a momentum above 0"),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(ModelInputError, match=message):
        load_recipe("paper", **changes)


def test_an_unknown_recipe_shows_the_nearest():
    with pytest.raises(ModelInputError, match="unknown recipe 'papers'; did you mean 'paper'"):
        load_recipe("papers")
    papers = ("detection", "imagenet", "preresnet", "resnext", "retinanet", "uvit", "vit", "wrn")
    others = {"detection_from_scratch", "fine_tune", "one_cycle", "paper"}
    assert set(list_recipes()) == others | {f"paper_{n}" for n in papers}


def test_evaluation_by_hand():
    """Logits favour class 0 for all three images; one of them is of class 0."""

    class Zero(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([2.0, 0.0, 0.0]).expand(len(x), 3)

    batch = Batch(torch.zeros(3, 4, 4, 1, dtype=torch.uint8), torch.tensor([0, 1, 1]), ("a", "b", "c"))
    found = evaluate(Zero(), [batch], Preprocessing(height=4, width=4, mean=(0.0,), std=(1.0,)), 3, CPU)
    right = torch.log(torch.exp(torch.tensor(2.0)) + 2)  # -log softmax, before the winner's 2 is taken off
    assert found.accuracy == pytest.approx(1 / 3)
    assert found.per_class_accuracy == (1.0, 0.0, None)
    assert found.loss == pytest.approx(float(right - 2 / 3))


class KilledError(Exception):
    """Stands for a power cut."""


class Kill(Callback):
    """Ends the run after its second epoch, when that epoch was kept and before its training state is saved."""

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KilledError


def test_kept_epochs_are_the_same_after_an_interruption(tmp_path):
    keeping = config(epochs=3).model_copy(update={"keep_every": 1})
    fit(keeping, tmp_path / "whole", CPU)
    with pytest.raises(KilledError):
        fit(keeping, tmp_path / "killed", CPU, callbacks=(Kill(),))
    assert len(kept_epochs(tmp_path / "killed")) == 3
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    fit(keeping, tmp_path / "killed", CPU, resume=True)
    whole, killed = (kept_epochs(tmp_path / run) for run in ("whole", "killed"))
    assert [path.name for path in whole] == [path.name for path in killed]
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in killed]
    assert [Checkpoint.read(path).info.epoch for path in whole] == [0, 1, 2, 3]


def test_a_run_keeps_no_epochs_unless_asked(tmp_path):
    fit(config(epochs=1), tmp_path / "run", CPU)
    assert not list((tmp_path / "run").glob("epoch-*"))
    with pytest.raises(ModelInputError, match="keeps no epochs; train with keep_every=1"):
        kept_epochs(tmp_path / "run")
