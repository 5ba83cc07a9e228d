"""The network before training is the one that the run began with, to the bit, and named for what it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cli.common.inputs import open_networks
from cli.common.options import DataOptions, NetworkOptions
from dia_analysis import measure_correlation
from dia_analysis.paper.measure_untrained import Tally
from dia_models import Checkpoint, create_model, save_checkpoint
from dia_models.checkpoints.untrained import has_statistics, untrained_network
from dia_models.runs.run import fit
from tests.support.commands import analyze, plain_checkpoint
from tests.support.runs import CPU, config

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one epoch that kept its epochs."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    recipe = config(epochs=1, model="cifar_resnet20_dia_lstm", training_images=64)
    fit(recipe.model_copy(update={"keep_every": 1}), folder, CPU)
    return folder


def same(weights, model):
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def alone(run, folder):
    """The run's network without the epochs that it kept."""
    return shutil.copy(run / "model.safetensors", folder / "model.safetensors")


def test_the_kept_epoch_0_is_taken(run):
    found = untrained_network(Checkpoint.read(run / "model.safetensors"))
    kept, trained = (Checkpoint.read(run / name).weights for name in ("epoch-0000.safetensors", "model.safetensors"))
    assert (found.weights, found.exact) == ("epoch 0 of the run, kept in epoch-0000.safetensors", True)
    assert same(kept, found.model)
    assert not same(trained, found.model)
    assert not found.model.training


def test_the_runs_seed_gives_the_weights_it_began_with_to_the_bit(run, tmp_path):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    found = untrained_network(Checkpoint.read(alone(run, tmp_path)))
    assert (found.weights, found.exact) == ("random, with the run's seed 3", True)
    assert same(Checkpoint.read(run / "epoch-0000.safetensors").weights, found.model)
    assert torch.equal(torch.get_rng_state(), before)


def test_epoch_0_of_another_run_is_not_taken(run, tmp_path):
    alone(run, tmp_path)
    other = Checkpoint.read(run / "epoch-0000.safetensors")
    info = other.info.model_copy(update={"seed": 4})
    save_checkpoint(tmp_path / "epoch-0000.safetensors", other.build(), info)
    found = untrained_network(Checkpoint.read(tmp_path / "model.safetensors"))
    assert found.weights == "random, with the run's seed 3"


def altered(run, path, **recipe):
    """The run's network under another recipe."""
    checkpoint = Checkpoint.read(run / "model.safetensors")
    info = checkpoint.info.model_copy(update={"recipe": recipe})
    save_checkpoint(path, checkpoint.build(), info)
    return Checkpoint.read(path)


def test_a_run_from_another_checkpoint_and_one_without_a_record_are_said_to_be(run, tmp_path):
    found = untrained_network(altered(run, tmp_path / "from.safetensors", epochs=1, start_from="0" * 64))
    assert not found.exact
    assert found.weights == "random, seed 3; the run itself started from another checkpoint, which is not here"
    found = untrained_network(altered(run, tmp_path / "imported.safetensors", imported_from="net.pth"))
    assert (found.exact, found.weights) == (False, "random, seed 3; how the network was trained is not recorded")


def test_where_it_was_kept_the_start_of_a_run_from_a_checkpoint_is_taken(run, tmp_path):
    last = altered(run, tmp_path / "model.safetensors", epochs=1, start_from="0" * 64)
    start = last.info.model_copy(update={"epoch": 0})
    save_checkpoint(tmp_path / "epoch-0000.safetensors", last.build(), start)
    found = untrained_network(last)
    assert found.exact
    assert found.weights.endswith("with the weights of the checkpoint that it started from")


def test_batch_norms_are_told_from_other_norms():
    assert has_statistics(create_model("cifar_resnet11"))
    assert not has_statistics(torch.nn.GroupNorm(2, 4))
    assert not has_statistics(torch.nn.BatchNorm2d(4, track_running_stats=False))


def inputs(path, images=24, data=None, seed=0):
    options = DataOptions(data, images, device="cpu", batch_size=16, workers=1, seed=seed)
    return open_networks(NetworkOptions([str(path)]), options)[0]


def measured(path):
    opened = inputs(path)
    return [stage.mean_r for stage in measure_correlation(opened.model, opened.batches("")).stages]


@pytest.mark.usefixtures("_undrawn")
def test_correlation_sets_both_baselines_beside_the_network(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cli.analyses.correlation.draw", lambda *_: {})
    options = ("--images", 24, "-b", 16, "--seed", 0)
    assert analyze("correlation", "--ckpt", run / "model.safetensors", *options, "--json", "--out", tmp_path / "a") == 0
    document = json.loads(capsys.readouterr().out)
    saved, again = document["untrained"], document["untrained_reestimated"]
    assert [stage["mean_r"] for stage in saved["stages"]] == measured(run / "epoch-0000.safetensors")
    assert (saved["exact"], saved["statistics"]) == (True, "as saved")
    assert again["weights"] == saved["weights"] == "epoch 0 of the run, kept in epoch-0000.safetensors"
    assert again["statistics"] == "re-estimated on 24 of the measured images"
    assert abs(again["stages"][2]["mean_r"] - saved["stages"][2]["mean_r"]) > 0.05
    assert document["training"]["images"] == 24
    names = {path.name for path in (tmp_path / "a").glob("*.nc")}
    assert names == {f"{kind}stage{stage}.nc" for kind in ("", "untrained-", "reestimated-") for stage in (1, 2, 3)}


def test_the_baselines_do_not_depend_on_the_commands_seed(run, tmp_path):
    path = alone(run, tmp_path)
    models = [inputs(path, seed=seed).before_training().model for seed in (0, 1)]
    assert same(models[0].state_dict(), models[1])


def test_statistics_are_re_estimated_on_the_images_and_nothing_else_changes(run):
    opened = inputs(run / "model.safetensors", 16)  # one batch
    model, again = opened.before_training().model, opened.before_training().model
    assert opened.reestimate(again) == 16
    (images,) = opened.batches("")
    features = model.stem[0](images).detach()
    torch.testing.assert_close(again.stem[1].running_mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(again.stem[1].running_var, features.var((0, 2, 3)))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not any(module.training for module in again.modules())


@pytest.mark.usefixtures("_undrawn")
def test_a_network_without_batch_norms_has_one_baseline(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cli.analyses.correlation.draw", lambda *_: {})
    assert inputs(run / "model.safetensors").reestimate(torch.nn.Conv2d(1, 1, 1)) == 0
    monkeypatch.setattr("dia_models.networks.prepared.has_statistics", lambda _: False)
    command = ("correlation", "--ckpt", run / "model.safetensors", "--images", 4, "--out", tmp_path / "a")
    assert analyze(*command, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["untrained_reestimated"] is None
    assert document["untrained"]["statistics"] is None
    assert analyze(*command, "--overwrite") == 0
    assert "before training (weights: epoch 0 of the run, kept in epoch-0000.safetensors)\n" in capsys.readouterr().out


def test_the_accuracy_is_counted_while_the_maps_are_taken():
    opened = inputs("digits-resnet56-se", 40)
    tally = Tally(opened.known.recorded)
    with tally.watching(opened.model):
        measure_correlation(opened.model, tally.images_of(opened.answered("")))
    labels = opened.images.source.labels[torch.tensor(opened.images.chosen)]
    with torch.no_grad():
        wanted = int((torch.cat([opened.model(x) for x in opened.batches("")]).argmax(1) == labels).sum())
    assert (tally.training().correct, tally.training().num_images) == (wanted, 40)
    assert wanted > 30
    assert tally.training().doubt() is None
    assert not opened.model._forward_hooks


@pytest.mark.usefixtures("_undrawn")
def test_a_network_that_diverged_gets_nothing_right(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("cli.analyses.correlation.draw", lambda *_: {})
    checkpoint = Checkpoint.read("digits-resnet56-se")
    model = checkpoint.build()
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    save_checkpoint(tmp_path / "nan.safetensors", model, checkpoint.info)
    assert analyze("correlation", "--ckpt", tmp_path / "nan.safetensors", "--images", 4, "--out", tmp_path / "o") == 0
    out = capsys.readouterr().out
    assert "The attention maps of 18 layers, the first of them stages.0.attention.0.gate, are not finite" in out
    assert "inconclusive, as the network has diverged." in out
    assert "It gets 0.0% of these images right." in out


@pytest.mark.usefixtures("_undrawn")
def test_a_network_of_random_weights_and_a_store_of_it_give_no_verdict(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cli.analyses.correlation.draw", lambda *_: {})
    path, folder = tmp_path / "net.safetensors", tmp_path / "images"
    plain_checkpoint(path, "cifar_resnet20_se")
    random = np.random.default_rng(0)
    for label in ("no", "yes"):
        (folder / label).mkdir(parents=True)
        picture(folder / label / "0.png", random)
    options = ("--data", f"folder:{folder}")
    assert analyze("correlation", "--ckpt", path, *options, "--out", tmp_path / "a") == 0
    assert "inconclusive, as no training of it is recorded" in capsys.readouterr().out
    assert analyze("capture", "--ckpt", path, *options, "--out", tmp_path / "s.zarr") == 0
    assert analyze("correlation", "--capture", tmp_path / "s.zarr", "--out", tmp_path / "b") == 0
    assert "inconclusive, as a capture store does not tell whether its network was trained" in capsys.readouterr().out


def picture(path: Path, random: np.random.Generator) -> None:
    from PIL import Image

    Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
