"""Sweeps: what the files say, how runs share the machine, and that nothing is lost when workers are."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dia_analysis.paper.sweeps import SweepResult
from dia_models import Checkpoint, ModelInputError
from dia_models.audit.published import audit
from dia_models.data.request import SETS
from dia_models.factory import blueprint
from dia_models.runs.run import fit
from dia_models.spec import ModelSpec
from dia_models.sweeps.executor import QueuedRun, places, train_locally
from dia_models.sweeps.sweep import SCALES, list_sweeps, load_sweep, parse_seeds
from dia_models.training.config import RunConfig
from dia_models.training.recipe import Recipe, list_recipes, load_recipe
from tests.support.commands import train

SMALL = """
title = "Try"
source = "nowhere"
question = "Does it run?"
reference = "SE"

[variants]
Org = {}
SE = { attention = "se" }

[scales.laptop]
data = ["digits"]
backbones = { cifar_resnet11 = "one_cycle" }
seeds = 1
image_size = 8

[scales.laptop.set]
epochs = 2
batch_size = 256
augment = "crop"
padding = 1
"""
QUICK = ("--jobs", 1, "--set", "training_images=256")


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", list_sweeps())
def test_every_run_of_every_sweep_is_one_that_can_be_trained(name, scale):
    sweep = load_sweep(name)
    runs = sweep.runs(scale, range(2))
    size = sweep.scale(scale)
    assert len(runs) == 2 * len(size.data) * len(size.backbones) * len(sweep.variants_at(scale))
    assert len({run.directory for run in runs}) == len(runs)
    for run in runs:
        blueprint(ModelSpec(name=run.config.model, options=run.config.options))
    assert all(size.hours[machine] > 0 for machine in {"paper": ("H100", "two cores"), "laptop": ("two cores",)}[scale])


def test_there_is_a_sweep_for_every_table_of_trained_networks():
    sources = {load_sweep(name).source for name in list_sweeps()}
    assert sources >= {f"Table {n}" for n in ("III", "IV", "VI", "VII", "VIII", "IX", "X")}
    assert sources >= {f"Table {n}" for n in ("XI", "XII", "XIII", "XIV", "XV", "XVI", "XVII")}
    assert sources >= {"Figure 8", "Figure 10", "Figures 13 and 14", "Figure 15"}


def test_the_networks_of_table_4_have_the_parameters_that_the_paper_prints():
    sweep = load_sweep("table04")
    ours = {(run.config.model, frozenset(run.config.options.items())) for run in sweep.runs("paper", [0])}
    assert ours == {(v.entry.model, frozenset(v.entry.options.items())) for v in audit() if v.entry.table == "IV"}


def test_detectors_of_the_paper_start_from_classifiers_with_the_same_attention(tmp_path, capsys):
    sweep = load_sweep("table10")
    runs = sweep.runs("paper", [0])
    with pytest.raises(
        ModelInputError, match="table10 at paper scale starts every network from a checkpoint: .* resnet50.safetensors"
    ):
        sweep.start_from_checkpoints("paper", runs, None)
    with pytest.raises(ModelInputError, match="lacks resnet101.safetensors, resnet101_dia_lstm.safetensors, "):
        sweep.start_from_checkpoints("paper", runs, tmp_path)
    kinds = ("", "_se", "_eca", "_sge", "_dia_lstm", "_dia_lstm_light")
    for name in (f"resnet{depth}{kind}.safetensors" for depth in (50, 101) for kind in kinds):
        (tmp_path / name).touch()
    started = sweep.start_from_checkpoints("paper", runs, tmp_path)
    assert {Path(run.config.start_from).name for run in started} == {path.name for path in tmp_path.iterdir()}
    for run in started:
        assert run.config.model.split("_", 1)[1].replace("_fpn", "") == Path(run.config.start_from).stem
    laptop = sweep.runs("laptop", [0])
    assert sweep.start_from_checkpoints("laptop", laptop, None) == laptop
    assert train("sweep", "table10", "--out", tmp_path / "out") == 1
    assert "--from" in capsys.readouterr().err


def test_seeds():
    assert parse_seeds("0-2,7,2") == [0, 1, 2, 7]
    for wrong in ("", "a", "3-1", "1-", "0-99999999"):
        with pytest.raises(ModelInputError, match="accepted: 0-4 or 0,7 or 3"):
            parse_seeds(wrong)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("title =", "titel ="), r"unknown key 'titel'; did you mean 'title'\?"),
        (("image_size = 8", "image_sice = 8"), "did you mean 'scales.laptop.image_size'"),
        (("{ attention =", "{ atention ="), "did you mean 'variants.SE.attention'"),
        (("[variants]", '[metric]\nky = "ap"\n[variants]'), "did you mean 'metric.key'"),
        (("seeds = 1", 'seeds = "many"'), r"scales.laptop.seeds: .*valid integer"),
        (('reference = "SE"', 'reference = "ES"'), r"'ES' is not a variant; there are Org, SE"),
        (("[variants]", "[variants"), r"cannot be read"),
        (("[scales.laptop]", "[scales.desktop]"), r"scales.desktop"),
    ],
)
def test_a_file_that_is_wrong_says_where(small, change, said):
    small.write_text(SMALL.replace(*change))
    with pytest.raises(ModelInputError, match=said):
        load_sweep(str(small))


def test_an_unknown_sweep_scale_or_field(small):
    with pytest.raises(ModelInputError, match="did you mean 'table04'"):
        load_sweep("tabel04")
    with pytest.raises(ModelInputError, match="unknown scale 'paper'"):
        load_sweep(str(small)).runs("paper", [0])
    with pytest.raises(ModelInputError, match="did you mean 'epochs'"):
        load_sweep(str(small)).runs("laptop", [0], {"epoch": 3})


def test_places_share_the_cores():
    cores = sorted(os.sched_getaffinity(0))
    assert [place.cores for place in places(torch.device("cpu"))] == [(core,) for core in cores]
    assert places(torch.device("cpu"), 1)[0].cores == tuple(cores)
    with pytest.raises(ModelInputError, match=f"accepted: 1 to {len(cores)}"):
        places(torch.device("cpu"), len(cores) + 1)


@pytest.mark.usefixtures("_quick_workers")
def test_a_sweep_on_the_command_line(small, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("sweep", small, "--scale", "laptop", "--seeds", "0-1", *QUICK, "--out", out)
    assert train(*arguments) == 0
    printed, told = capsys.readouterr()
    assert "4 of 4 runs" in printed
    assert told.count("%") == 4
    assert told.splitlines()[-1] == f"beside the paper's numbers: dia-analyze tables --runs {out}"
    document = json.loads((out / "sweep.json").read_text())
    result = SweepResult.from_dict(document)
    assert result.to_dict() == document
    plain, se = result.cells()
    assert (plain.variant, plain.versus, plain.score.runs) == ("Org", "SE", 2)
    assert (se.variant, se.versus, se.difference) == ("SE", None, None)
    scores = [json.loads(path.read_text())["last"]["test_accuracy"] for path in sorted(out.glob("*-org-*/result.json"))]
    assert plain.score.mean == pytest.approx(100 * sum(scores) / 2)
    machines = [run.machine for run in result.runs]
    assert all(machine["precision"] in ("float32", "bfloat16") and machine["processor"] for machine in machines)
    assert train(*arguments) == 0
    assert "4 of 4 runs are finished already" in capsys.readouterr().err
    assert train(*arguments, "--set", "epochs=3") == 1
    assert "is a run with another configuration" in capsys.readouterr().err


@pytest.mark.usefixtures("_quick_workers")
def test_a_run_that_fails_does_not_stop_the_others(small, tmp_path, capsys):
    """A folder with an image that no decoder reads: found before training, and an error with --strict when read."""
    for part in ("train", "test"):
        (tmp_path / "broken" / part / "a").mkdir(parents=True)
        (tmp_path / "broken" / part / "a" / "x.png").write_bytes(b"no image")
    text = SMALL.replace('data = ["digits"]', f'data = ["folder:{tmp_path}/broken", "digits"]')
    small.write_text(text.replace("SE = {", "X = {").replace('"SE"', '"X"'))
    arguments = ("--scale", "laptop", "--strict", *QUICK, "--set", "epochs=1", "--out", tmp_path / "out")
    assert train("sweep", small, *arguments) == 1
    printed, told = capsys.readouterr()
    assert "2 of 4 runs" in printed, told
    *reasons, last = told.splitlines()[-3:]
    assert all(line.startswith("failed: folder") and "x.png" in line for line in reasons), told
    assert last == f"error: SWEEP: 2 runs failed, as said above; the others are kept in {tmp_path / 'out'}"


@pytest.mark.parametrize("data", ["cifar10", "folder:{0}/nothing", "coco"])
def test_data_that_are_missing_are_one_line_and_leave_no_folder(small, tmp_path, capsys, data):
    data = data.format(tmp_path)
    text = SMALL.replace('data = ["digits"]', f'data = ["digits", "{data}"]')
    if data == "coco":
        pytest.importorskip("pycocotools", reason="needs the extra [detection]")
        text = text.replace("cifar_resnet11", "retinanet_resnet18_fpn").replace("image_size = 8\n", "")
        text = text.replace('["digits", "coco"]', '["coco"]')
    small.write_text(text)
    out = tmp_path / "out"
    assert train("sweep", small, "--scale", "laptop", "--data-dir", tmp_path / "none", "--out", out) == 1
    printed, told = capsys.readouterr()
    assert (printed, len(told.splitlines())) == ("", 1)
    assert told.startswith("error: ")
    assert len(told) <= 301
    assert ("(download)" in told) == (data == "cifar10")
    assert not out.exists()


def test_missing_data_are_fetched_once_before_the_runs(small, tmp_path, monkeypatch):
    """--download belongs to the look for the data: the workers find them there."""
    asked, digits = [], SETS["digits"]

    def opened(request):
        asked.append((request.split, request.download))
        return digits(request)

    monkeypatch.setitem(SETS, "digits", opened)
    monkeypatch.setattr(
        "dia_models.sweeps.folder.train_locally", lambda tasks, *_: {task.directory: "not tried" for task in tasks}
    )
    assert train("sweep", small, "--scale", "laptop", "--download", "--out", tmp_path / "out") == 1
    assert asked == [("train", True), ("test", True)]


def test_the_papers_recipes_train_on_all_training_images():
    for name in list_recipes():
        assert load_recipe(name).validation == 0 or not name.startswith("paper"), name
    for name in list_sweeps():
        sweep = load_sweep(name)
        held_out = {run.config.recipe.validation for run in sweep.runs("paper", [0])}
        assert held_out == ({0.1} if name in ("figure14", "figure15") else {0.0}), name  # these draw curves of it


def test_the_results_at_laptop_scale_are_made_by_the_same_recipes_as_now():
    """The page names the commands that make its numbers again."""
    for path in sorted((Path(__file__).parents[3] / "docs" / "results").glob("*.json")):
        document = json.loads(path.read_text())
        runs = load_sweep(document["sweep"]).runs(document["scale"], [0])
        then = {name: Recipe.model_validate(fields) for name, fields in document["provenance"]["recipes"].items()}
        assert then == {run.backbone: run.config.recipe for run in runs}, path.name
        assert document["planned"] == len(runs) * load_sweep(document["sweep"]).scale(document["scale"]).seeds


def test_where_the_paper_says_fifteen_runs_there_are_fifteen():
    seeds = {name: load_sweep(name).scale("paper").seeds for name in list_sweeps()}
    assert {name for name, count in seeds.items() if count == 15} == {"table03", "table04", "table10", "table11"}
    assert all(count >= 3 for count in seeds.values())


def test_no_title_names_data_that_a_scale_does_not_use():
    for name in list_sweeps():
        sweep = load_sweep(name)
        text = f"{sweep.title} {sweep.question}".lower().replace("-", "")
        named = [data for data in ("cifar10", "cifar100", "stl10", "imagenet", "miniimagenet", "coco") if data in text]
        assert named == [], name


@pytest.mark.usefixtures("_quick_workers")
def test_a_sweep_by_another_metric(small, tmp_path, capsys):
    metric = '[metric]\nkey = "loss"\nwords = "cross-entropy"\nunit = ""\nhigher_is_better = false\n\n[variants]'
    small.write_text(SMALL.replace("[variants]", metric))
    arguments = (
        "sweep",
        small,
        "--scale",
        "laptop",
        "--jobs",
        1,
        *QUICK,
        "--set",
        "epochs=1",
        "--out",
        tmp_path / "out",
    )
    assert train(*arguments) == 0
    printed, told = capsys.readouterr()
    assert "test cross-entropy after the last epoch (lower is better), mean" in " ".join(printed.split())
    assert "%" not in told
    result = SweepResult.from_dict(json.loads((tmp_path / "out" / "sweep.json").read_text()))
    losses = [json.loads(p.read_text())["last"]["test_loss"] for p in (tmp_path / "out").glob("*-org-*/result.json")]
    assert result.cells()[0].score.mean == pytest.approx(losses[0])
    assert result.cells()[1].versus is None


@pytest.fixture
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_threads", "_quick_workers")
def test_a_killed_worker_loses_no_run(small, tmp_path, monkeypatch):
    monkeypatch.setattr("dia_models.sweeps.executor.POLL_SECONDS", 0.05)
    runs = load_sweep(str(small)).runs("laptop", [0], {"epochs": 3, "training_images": 512})
    for run in runs:
        directory = tmp_path / run.directory
        directory.mkdir()
        (directory / "run.json").write_text(run.config.model_dump_json())
    first = tmp_path / runs[0].directory
    killed = []

    def kill_once(failed):
        if not killed and (first / "last.ckpt").exists() and not (first / "result.json").exists():
            killed.extend(child.pid for child in multiprocessing.active_children())
            os.kill(killed[0], signal.SIGKILL)

    tasks = [QueuedRun(tmp_path / run.directory) for run in runs]
    where = places(torch.device("cpu"), 1)
    assert train_locally(tasks, where, kill_once) == {}
    assert killed
    torch.set_num_threads(len(where[0].cores))  # as in the worker: the same sums in the same order
    alone = tmp_path / "alone"
    fit(RunConfig.read(first), alone, torch.device("cpu"))
    for run in runs:
        assert (tmp_path / run.directory / "result.json").exists()
    ours, theirs = (Checkpoint.read(str(path / "model.safetensors")).weights for path in (first, alone))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.usefixtures("_quick_workers")
def test_workers_end_with_the_sweep_and_the_sweep_goes_on(small, tmp_path, capsys):
    out = tmp_path / "out"
    sweep = ["sweep", str(small), "--scale", "laptop", "--jobs", "1", "--set", "epochs=4", "--out", str(out)]
    _start_and_kill([sys.executable, "-m", "cli.train", *sweep], out)
    assert train(*sweep) == 0
    assert "2 of 2 runs" in capsys.readouterr().out


def _start_and_kill(command, out):
    sweep = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(out.glob("*/last.ckpt")) and _children(sweep.pid))
    workers = _children(sweep.pid)
    assert sweep.poll() is None
    sweep.kill()
    sweep.wait()
    wait_for(lambda: not any(_lives(pid) for pid in workers))


def test_runs_on_a_ray_cluster_survive_the_loss_of_a_node(small, tmp_path):
    pytest.importorskip("ray", reason="needs the extra [cluster]")
    script = Path(__file__).parent / "two_ray_nodes.py"
    done = subprocess.run(
        [sys.executable, str(script), str(small), str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    finished, nodes = map(int, re.search(r"killed after (\d+) runs, (\d+) node left", done.stdout).groups())
    assert (finished < 4, nodes) == (True, 1)
    assert "4 of 4 runs" in done.stdout


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _lives(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_variant_can_start_from_another_network(tmp_path):
    """Those without attention from the checkpoint with it, or from the folded one; all of a trained network."""
    sweep = load_sweep("sharing_tuned")
    runs = sweep.runs("laptop", [0])
    with pytest.raises(ModelInputError, match="give a folder of them, where cifar_resnet20_se.safetensors and so on"):
        sweep.start_from_checkpoints("laptop", runs, None)
    for name in ("se", "dia_se", "folded"):
        (tmp_path / f"cifar_resnet20_{name}.safetensors").touch()
    starts = {
        run.variant: Path(run.config.start_from).stem.removeprefix("cifar_resnet20_")
        for run in sweep.start_from_checkpoints("laptop", runs, tmp_path)
    }
    assert starts["none, 1 epoch"] == starts["individual, 5 epochs"] == "se"
    assert (starts["shared, 1 epoch"], starts["constant, 5 epochs"]) == ("dia_se", "folded")
    assert {run.config.recipe.epochs for run in runs} == {1, 5}
