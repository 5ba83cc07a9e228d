"""dia-analyze correlation on several networks: side by side, over seeds, between each two; and what it refuses."""

import json

import pytest
import torch

from dia_models import CheckpointInfo, create_model, save_checkpoint
from dia_models.data import Preprocessing
from tests.support import shortened
from tests.support.commands import SE, analyze, failure, images

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Three runs of one network and another, with images for them."""
    folder = tmp_path_factory.mktemp("networks")
    made = [("cifar_resnet20_se", seed) for seed in (0, 1, 2)] + [("cifar_resnet20_eca", 0)]
    names = [f"{model.rpartition('_')[2]}-{seed}" for model, seed in made]
    paths = [folder / "sweep" / name / "model.safetensors" for name in names[:3]] + [folder / f"{names[3]}.safetensors"]
    for path, (model, seed) in zip(paths, made, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        network = create_model(model, num_classes=2)
        shown = Preprocessing(height=16, width=16, mean=(0.5,) * 3, std=(0.2,) * 3)
        info = CheckpointInfo(model=network.spec, data="x", classes=("a", "b"), preprocessing=shown, seed=seed)
        save_checkpoint(path, network, info)
    return paths, images(folder, 12)


@pytest.fixture(scope="module")
def compared(networks, tmp_path_factory):
    """What the command says of them all, and writes."""
    paths, shown = networks
    folder = tmp_path_factory.mktemp("out") / "out"
    with pytest.MonkeyPatch.context() as patch:
        shortened.shorten(patch)
        patch.setattr("cli.analyses.correlation.draw", lambda *_: {})
        given = ("--ckpt", paths[3], "--runs", paths[0].parent.parent)
        how = ("--data", f"folder:{shown}", "--across", "--similarity", "spearman", "--readings", "--out", folder)
        assert analyze("correlation", *given, *how) == 0
    return json.loads((folder / "correlation.json").read_text()), folder


def test_the_first_network_stands_on_top_and_the_others_beside_it(compared):
    document, folder = compared
    assert (document["schema"], document["checkpoint"]) == ("dia.correlation/2", "eca-0")
    assert [each["checkpoint"] for each in document["compared"]] == ["se-0", "se-1", "se-2"]
    assert all(each["stages"][0]["pooled_r"] is not None for each in document["compared"])
    assert {"stage1.nc", "network4-untrained-stage3.nc"} <= {path.name for path in folder.iterdir()}


def test_runs_that_differ_in_their_seed_are_put_together(compared):
    document, _ = compared
    (seeds,) = document["seeds"]
    assert (seeds["network"], seeds["checkpoints"]) == ("cifar_resnet20_se", ["se-0", "se-1", "se-2"])
    runs = [each["stages"] for each in document["compared"]]
    mean = sum(stages[0]["mean_r"] for stages in runs) / 3
    assert seeds["stages"][0]["mean_r"] == pytest.approx(mean)
    low, high = seeds["stages"][0]["mean_r_interval"]
    assert low < mean < high


def test_every_two_networks_are_compared_layer_by_layer(compared):
    document, _ = compared
    pairs = [(each["a"], each["b"]) for each in document["across"]]
    assert len(pairs) == 6
    assert ("eca-0", "se-2") in pairs
    assert all(len(each["matrix"]) == 6 == len(each["matrix"][0]) for each in document["across"])


def test_similarities_and_readings_are_in_the_document(compared):
    document, _ = compared
    assert document["stages"][0]["similarity"].keys() == {"spearman", "cosine", "logit", "sorted"}
    assert {row["reading"] for row in document["readings"]} >= {"r, image by image", "cosine, not centered"}


@pytest.mark.usefixtures("_shortened")
def test_its_figures_have_the_networks_names(networks, tmp_path):
    paths, shown = networks
    given = [option for path in (paths[0], paths[3]) for option in ("--ckpt", path)]
    assert analyze("correlation", *given, "--data", f"folder:{shown}", "--across", "--out", tmp_path / "out") == 0
    names = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert {"fig2-matrices", "fig2d-parts", "stripes", "eca-0-fig2d-parts", "across-se-0-eca-0"} <= names


def test_what_it_does_not_know_is_named(capsys, tmp_path):
    message = failure(capsys, analyze("correlation", "--ckpt", SE, "--similarity", "kendall"))
    assert message.startswith("error: --similarity: 'kendall' is none; give some of: pearson, cka, spearman, cosine")
    message = failure(capsys, analyze("correlation", "--runs", tmp_path))
    assert message.startswith(f"error: --runs: {tmp_path} holds no finished run")
    assert analyze("correlation", "--ckpt", SE, "--across") == 2
    assert "takes two networks or more: --ckpt A --ckpt B" in capsys.readouterr().err
