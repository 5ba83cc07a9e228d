"""The fields of a recipe that are off by default, each against plain arithmetic."""

import csv
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback

from dia_models import Checkpoint, ModelInputError, create_model
from dia_models.classification.evaluation import evaluate
from dia_models.classification.training import ClassifierTraining
from dia_models.data import MemoryImages, Preprocessing, hold_out, open_data
from dia_models.data.splits import balanced_subset
from dia_models.runs.run import fit
from dia_models.training.config import RunConfig
from dia_models.training.ema import moving_average
from dia_models.training.recipe import load_recipe

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(height=8, width=8, mean=(0.5,), std=(0.5,))


def config(epochs=2, model="cifar_resnet11", **changes):
    given = {"batch_size": 64, "augment": "crop", "padding": 1, "training_images": 200, "precision": "float32"}
    recipe = load_recipe("one_cycle", epochs=epochs, **{"validation": 0.1, **given, **changes})
    return RunConfig(model=model, data="digits", recipe_name="one_cycle", recipe=recipe, seed=3)


def step(model, **changes):
    """A training step's loss on four images, and their logits and labels."""
    training = ClassifierTraining(model, load_recipe("paper", **changes), PREPROCESSING, 4, 0)
    pixels, labels = torch.randint(0, 255, (4, 8, 8, 1), dtype=torch.uint8), torch.tensor([0, 1, 2, 3])
    return training.training_step((pixels, labels)), model(PREPROCESSING(pixels)), labels


def test_label_smoothing_mixes_in_the_mean_over_all_classes():
    model = create_model("cifar_resnet11", num_classes=10, in_channels=1).eval()
    loss, logits, labels = step(model, label_smoothing=0.2)
    log_p = logits.log_softmax(1)
    by_hand = -(0.8 * log_p[range(4), labels] + 0.2 * log_p.mean(1)).mean()
    torch.testing.assert_close(loss, by_hand)
    assert abs(loss - F.cross_entropy(logits, labels)) > 1e-4


def test_validation_and_test_losses_are_not_smoothed(tmp_path):
    result = fit(config(label_smoothing=0.5), tmp_path / "run", CPU)
    checkpoint = Checkpoint.read(tmp_path / "run" / "model.safetensors")
    assert loss_on(checkpoint, open_data("digits", "test")) == pytest.approx(result.last.loss, rel=1e-5)
    _, held = hold_out(open_data("digits", "train"), 0.1, 3)
    row = rows(tmp_path / "run")[-1]
    assert loss_on(checkpoint, held) == pytest.approx(float(row["val_loss"]), rel=1e-4)


def loss_on(checkpoint, images):
    batches = images.batches(range(len(images)), 64, None, 1)
    return evaluate(checkpoint.build(), batches, checkpoint.info.preprocessing, 10, CPU).loss


def rows(directory):
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


class Steps(Callback):
    """Remembers the trained network after every step."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.states.append({name: t.clone() for name, t in pl_module.model.state_dict().items()})


def test_clipping_bounds_each_step(tmp_path):
    moved = {}
    for clip in (0, 0.01):
        steps = Steps()
        plain = {"momentum": 0, "nesterov": False, "weight_decay": 0, "schedule": "step", "clip": clip}
        fit(config(epochs=1, learning_rate=0.1, **plain), tmp_path / str(clip), CPU, callbacks=(steps,))
        names = {name for name, _ in create_model("cifar_resnet11", num_classes=10, in_channels=1).named_parameters()}
        first, second = ({n: t.double() for n, t in state.items() if n in names} for state in steps.states[:2])
        moved[clip] = float(sum((first[n] - second[n]).square().sum() for n in names).sqrt())
    assert moved[0.01] == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert moved[0] > 10 * moved[0.01]


def test_a_moving_average_by_hand():
    model = torch.nn.Linear(1, 1, bias=False)
    average = moving_average(model, 0.25)
    seen = []
    for value in (4.0, 8.0, 16.0, 32.0):
        model.weight.data.fill_(value)
        average.update_parameters(model)
        seen.append(float(average.module.weight))
    second = 2 / 11 * 4 + 9 / 11 * 8  # the decay is at most 2/11, then 3/12 = 1/4
    third = second / 4 + 3 / 4 * 16
    assert seen == pytest.approx([4, second, third, third / 4 + 3 / 4 * 32])
    assert not average.module.weight.requires_grad
    assert model.weight.requires_grad


def test_the_average_is_what_is_validated_tested_and_saved(tmp_path):
    steps = Steps()
    result = fit(config(ema=0.9, epochs=3), tmp_path / "run", CPU, callbacks=(steps,))
    expected = {name: t.double() for name, t in steps.states[0].items()}
    for updates, state in enumerate(steps.states[1:], 1):
        kept = min(0.9, (1 + updates) / (10 + updates))
        for name, current in state.items():
            expected[name] = kept * expected[name] + (1 - kept) * current
    saved = Checkpoint.read(tmp_path / "run" / "model.safetensors")
    names = [name for name in saved.weights if not name.endswith("num_batches_tracked")]
    assert any(name.endswith("running_var") for name in names)
    for name in names:
        torch.testing.assert_close(saved.weights[name].double(), expected[name], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(saved.weights["classifier.weight"], steps.states[-1]["classifier.weight"], rtol=1e-3)
    assert loss_on(saved, open_data("digits", "test")) == pytest.approx(result.last.loss, rel=1e-5)
    _, held = hold_out(open_data("digits", "train"), 0.1, 3)
    assert loss_on(saved, held) == pytest.approx(float(rows(tmp_path / "run")[-1]["val_loss"]), rel=1e-4)
    best = Checkpoint.read(tmp_path / "run" / "best.safetensors")
    scores = [float(row["val_accuracy"]) for row in rows(tmp_path / "run")]
    if scores.index(max(scores)) == 2:
        assert all(torch.equal(best.weights[name], saved.weights[name]) for name in saved.weights)


def test_an_average_that_forgets_at_once_is_the_network(tmp_path):
    for name, ema in (("plain", 0), ("averaged", 1e-12)):
        fit(config(ema=ema), tmp_path / name, CPU)
    plain, averaged = (Checkpoint.read(tmp_path / n / "model.safetensors").weights for n in ("plain", "averaged"))
    for name in plain:
        torch.testing.assert_close(plain[name], averaged[name])


class Stop(Callback):
    """A power cut in the third epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 2:
            raise KeyError("power")


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9, "clip": 1.0, "label_smoothing": 0.1},
        {"optimizer": "adamw", "learning_rate": 1e-3, "schedule": "step", "milestones": [0.5], "warmup": 0.3},
    ],
    ids=["averaged", "adamw"],
)
def test_what_is_on_survives_an_interruption(tmp_path, changes):
    fit(config(epochs=4, **changes), tmp_path / "whole", CPU)
    with pytest.raises(KeyError, match="power"):
        fit(config(epochs=4, **changes), tmp_path / "cut", CPU, callbacks=(Stop(),))
    fit(config(epochs=4, **changes), tmp_path / "cut", CPU, resume=True)
    for name in ("model", "best"):
        whole, cut = (Checkpoint.read(tmp_path / run / f"{name}.safetensors").weights for run in ("whole", "cut"))
        assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_adamw_takes_momentum_as_its_first_beta_and_decays_apart_from_the_gradient():
    model = torch.nn.Linear(2, 2, bias=False)
    before = model.weight.detach().clone()
    recipe = load_recipe("paper", optimizer="adamw", learning_rate=0.01, momentum=0.8, weight_decay=0.1)
    optimizer = ClassifierTraining(model, recipe, PREPROCESSING, 4, 0).configure_optimizers()["optimizer"]
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)
    model.weight.grad = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    optimizer.step()
    by_hand = before * (1 - 0.01 * 0.1) - 0.01 * model.weight.grad.sign()  # Adam's first step is the sign
    torch.testing.assert_close(model.weight.detach(), by_hand)


def labelled(*labels):
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return MemoryImages(pixels, torch.tensor(labels), ("a", "b", "c"))


def test_fewer_training_images_are_balanced_as_far_as_possible():
    images = labelled(*[0] * 20, *[1] * 3, *[2] * 20)
    for count, per_class in ((6, [2, 2, 2]), (9, [3, 3, 3]), (15, [6, 3, 6]), (43, [20, 3, 20])):
        chosen = balanced_subset(images, count, 0)
        assert chosen.labels.bincount(minlength=3).tolist() == per_class
        assert len(chosen.pixels.unique()) == count
    assert sorted(balanced_subset(images, 7, 0).labels.bincount(minlength=3).tolist()) == [2, 2, 3]


def test_the_seed_draws_the_images_and_more_include_fewer():
    images = labelled(*[0] * 30, *[1] * 30, *[2] * 30)
    drawn = {(n, seed): set(balanced_subset(images, n, seed).pixels.flatten().tolist()) for n, seed in COUNTS}
    assert drawn[12, 0] < drawn[24, 0]
    assert drawn[12, 0] != drawn[12, 1]
    assert drawn[12, 0] == set(balanced_subset(images, 12, 0).pixels.flatten().tolist())


COUNTS = [(12, 0), (24, 0), (12, 1)]


def test_images_held_out_for_validation_come_first(tmp_path):
    seen = []

    class Seen(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(len(batch[1]))
            assert trainer.datamodule.validation.labels.equal(held.labels)

    _, held = hold_out(open_data("digits", "train"), 0.1, 3)
    fit(config(epochs=1, training_images=100), tmp_path / "run", CPU, callbacks=(Seen(),))
    assert seen == [64, 36]


def test_more_training_images_than_there_are_is_an_error(tmp_path):
    with pytest.raises(ModelInputError, match="training_images=1294: there are 1293 images to train on"):
        fit(config(training_images=1294), tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


COMPILED = """
import functools, sys, torch
from pathlib import Path
from lightning.pytorch.callbacks import Callback
from dia_models.runs import run
from dia_models.runs.run import fit
from dia_models.training.config import RunConfig

torch.compile = functools.partial(torch.compile, backend="aot_eager")  # traces as the default does, compiles quickly

class Stop(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyError

out, cpu = Path(sys.argv[1]), torch.device("cpu")
plain, compiled = (RunConfig.model_validate_json(Path(path).read_bytes()) for path in sys.argv[2:])
fit(plain, out / "plain", cpu)
try:
    fit(compiled, out / "compiled", cpu, callbacks=(Stop(),))
except KeyError:
    fit(compiled, out / "compiled", cpu, resume=True)
"""


def test_a_compiled_run_saves_and_resumes_like_any_other(tmp_path):
    """In a process of its own: what checks shapes in tests cannot be compiled."""
    paths = []
    for compiled in (False, True):
        paths.append(tmp_path / f"{compiled}.json")
        changes = {"augment": "none", "training_images": 64, "validation": 0, "compile": compiled}
        paths[-1].write_text(config(**changes).model_dump_json())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", COMPILED, tmp_path, *paths], check=True, env=environment)
    weights = [Checkpoint.read(tmp_path / r / "model.safetensors").weights for r in ("plain", "compiled")]
    assert weights[0].keys() == weights[1].keys()
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-3)
    states = [torch.load(tmp_path / r / "last.ckpt", weights_only=True)["state_dict"] for r in ("plain", "compiled")]
    assert states[0].keys() == states[1].keys()


def test_without_a_compiler_one_line_says_so(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("\nno C++ compiler\nlong story")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ModelInputError, match="compile=true needs a compiler that works here: no C\\+\\+ compiler$"):
        fit(config(compile=True), tmp_path / "run", CPU)
