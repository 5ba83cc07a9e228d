"""Runs survive kill -9 at any moment, full disks and damaged files, and end as if nothing had happened."""

import csv
import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cli.common.main
import cli.train
from dia_models import ModelInputError
from dia_models.runs.run import fit
from dia_models.training.config import RunConfig
from dia_models.training.files import NotWrittenError, leftover, save, writing
from dia_models.training.recipe import load_recipe

CPU = torch.device("cpu")
KILLS = 20

# Forks a run for each line of its input, so that a run costs no imports, and answers with how it ended.
HELPER = """
import json, os, resource, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import cli.common.main, cli.train
import dia_models.classification.training, dia_models.runs.training_run, sklearn.datasets  # fit imports them late
from dia_models.runs.run import fit
from dia_models.training.config import RunConfig

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def die_in_save(number):
    # half of the file's content is there when the power goes
    def fsync(fd, before=os.fsync, seen=[]):
        seen.append(fd)
        if len(seen) == number:
            os.ftruncate(fd, os.fstat(fd).st_size // 2)
            die()
        before(fd)
    os.fsync = fsync

def run(job):
    if "save" in job:
        die_in_save(job["save"])
    if "bytes" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["bytes"], resource.RLIM_INFINITY))
    if "arguments" in job:
        sys.stdout = sys.stderr = open(job["stderr"], "w")
        code = cli.common.main.run(cli.train.app, job["arguments"])
        sys.stderr.flush()
        return code
    config = RunConfig.model_validate_json(job["config"])
    fit(config, Path(job["directory"]), torch.device("cpu"), resume=job["resume"])
    return 0

for line in sys.stdin:
    job, started = json.loads(line), time.monotonic()
    if (pid := os.fork()) == 0:
        code = 9
        try:
            code = run(job)
        finally:
            os._exit(code)
    status = None
    while status is None:
        ended, found = os.waitpid(pid, os.WNOHANG)
        if ended:
            status = found
        elif time.monotonic() - started > job.get("seconds", 300):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    print(json.dumps({"killed": os.WIFSIGNALED(status), "status": status, "seconds": time.monotonic() - started}))
    sys.stdout.flush()
"""


class Helper:
    """Runs in processes of their own."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", HELPER], env=environment, **pipes)

    def __call__(self, **job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def fit(self, directory, **moment):
        resume = (directory / "run.json").exists()
        return self(config=config().model_dump_json(), directory=str(directory), resume=resume, **moment)


@pytest.fixture(scope="module")
def whole(helper, tmp_path_factory):
    """What an uninterrupted run leaves, and the seconds that it takes."""
    directory = tmp_path_factory.mktemp("whole")
    ended = helper.fit(directory)
    assert ended["status"] == 0
    found = content(directory)
    assert [row["epoch"] for row in found["rows"]] == list("01")
    assert {"model.safetensors", "best.safetensors", "epoch-0002.safetensors"} <= found.keys()
    return found, ended["seconds"]


@pytest.fixture(scope="module")
def helper():
    helper = Helper()
    yield helper
    helper.process.stdin.close()
    helper.process.wait(60)
    helper.process.stdout.close()


def config(**changes):
    given = {"epochs": 2, "batch_size": 64, "augment": "crop", "padding": 1, "training_images": 128, "ema": 0.5}
    recipe = load_recipe("one_cycle", **{**given, "validation": 0.1, **changes})
    return RunConfig(
        model="cifar_resnet11_dia_lstm", data="digits", recipe_name="one_cycle", recipe=recipe, seed=3, keep_every=2
    )


def content(directory):
    """All that a run leaves, without the times and places."""
    with (directory / "metrics.csv").open() as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    result = json.loads((directory / "result.json").read_text()) | {"directory": "", "training_seconds": None}
    states = {path.name: path.read_bytes() for path in directory.glob("*.safetensors")}
    return {"rows": rows, "result": result, "names": sorted(os.listdir(directory)), **states}  # noqa: PTH208


def test_twenty_kills_change_nothing(helper, whole, tmp_path):
    """Half of them at a random time, half in the middle of writing a file."""
    expected, seconds = whole
    draw, kills, resumed, runs = random.Random(1), 0, 0, 0
    while kills < KILLS:
        directory = tmp_path / f"run{runs}"
        runs += 1
        done = False
        while not done:
            times, saves = {"seconds": draw.uniform(0, seconds)}, {"save": draw.randint(1, 12)}
            ended = helper.fit(directory, **({} if kills >= KILLS else times if kills % 2 else saves))
            done = ended["status"] == 0
            assert done or ended["killed"], ended
            kills += not done
            resumed += not done and (directory / "last.ckpt").exists()
        assert content(directory) == expected
    assert resumed >= 5  # the moments were not all before the first epoch's end
    assert runs >= 2


def test_every_save_of_a_run_may_be_cut_off(helper, whole, tmp_path):
    directory, number = tmp_path / "cut", 0
    while helper.fit(directory, save=1 + number % 7)["killed"]:
        number += 1
        assert any(map(leftover, directory.iterdir()))
    assert number > 3
    assert content(directory) == whole[0]


FIT = ["fit", "--model", "cifar_resnet11", "--data", "digits", "--set", "training_images=64"]


def run(*arguments):
    return cli.common.main.run(cli.train.app, list(map(str, arguments)))


@pytest.mark.parametrize(
    ("epochs", "number", "name"),
    [
        (1, 2, "metrics.csv"),
        (1, 3, "best.safetensors"),
        (1, 4, "last.ckpt"),
        (2, 5, "metrics.csv"),
        (1, 5, "model.safetensors"),
        (1, 7, "result.json"),
    ],
)
def test_a_full_disk_is_one_line_that_says_how_to_go_on(tmp_path, capsys, monkeypatch, epochs, number, name):
    out = tmp_path / "run"
    monkeypatch.setattr(os, "fsync", full_at(number))
    assert run(*FIT, "--set", f"epochs={epochs}", "--out", out) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"error: --out: {name} could not be written: No space left on device; what was saved before stays; "
        f"resume the run in {out} to continue"
    )
    assert not any(map(leftover, out.iterdir()))
    monkeypatch.undo()
    assert run("fit", "--resume", "--out", out) == 0
    assert json.loads((out / "result.json").read_text())["outcome"] == "finished"


def full_at(number):
    """An os.fsync that finds the disk full from the given call on."""
    calls, before = [], os.fsync

    def fsync(fd):
        calls.append(fd)
        if len(calls) >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        before(fd)

    return fsync


def test_a_disk_that_is_full_from_the_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_at(1))
    assert run(*FIT, "--out", tmp_path / "run") == 1
    assert "No space left on device; nothing was trained yet" in capsys.readouterr().err
    monkeypatch.undo()
    assert run(*FIT, "--set", "epochs=1", "--out", tmp_path / "run") == 0


def test_a_file_that_truly_cannot_be_written(helper, tmp_path):
    """The system lets no file grow above 100 kB, which the training state does."""
    out, err = tmp_path / "run", tmp_path / "err"
    assert (
        helper(arguments=[*FIT, "--set", "epochs=1", "--out", str(out)], bytes=100_000, stderr=str(err))["status"] >> 8
        == 1
    )
    last = err.read_text().splitlines()[-1]
    assert "could not be written: File too large; what was saved before stays" in last
    assert "Traceback" not in err.read_text()
    assert helper(arguments=["fit", "--resume", "--out", str(out)], stderr=str(err))["status"] == 0
    assert (out / "result.json").exists()


def test_other_errors_of_the_system_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(NotWrittenError, match=r"run.json could not be written: File exists"):
        (tmp_path / "file").write_text("")
        save(tmp_path / "file" / "run.json", b"")
    with pytest.raises(ValueError, match="mine"), writing(tmp_path / "file"):
        raise ValueError("mine")


def test_leftovers_of_interrupted_saves_are_not_in_the_way(tmp_path):
    (tmp_path / ".run.json.123").write_text("{")
    fit(config(epochs=1), tmp_path, CPU)
    assert not (tmp_path / ".run.json.123").exists()
    assert not leftover(tmp_path / ".notes.txt")
    assert not leftover(tmp_path / "run.json")


def edited(directory, change):
    document = json.loads((directory / "run.json").read_text())
    change(document)
    (directory / "run.json").write_text(json.dumps(document))


def test_a_run_of_an_older_version_has_the_defaults_of_what_is_new(tmp_path):
    fit(config(epochs=1, ema=0), tmp_path, CPU)
    new = ("ema", "clip", "label_smoothing", "compile", "warmup", "optimizer")
    edited(tmp_path, lambda document: [document["recipe"].pop(name) for name in new])
    assert RunConfig.read(tmp_path) == config(epochs=1, ema=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["recipe"].update(speed=3), "recipe.speed: Extra inputs are not permitted; if another version"),
        (lambda d: d["recipe"].pop("epochs"), "recipe.epochs: Field required; if another version of dia-analysis"),
        (lambda d: d.update(schema_name="dia.run/2"), "schema_name: Input should be 'dia.run/1'"),
    ],
)
def test_a_run_of_another_version_says_what_is_not_understood(tmp_path, change, message):
    save(tmp_path / "run.json", config().model_dump_json().encode())
    edited(tmp_path, change)
    with pytest.raises(ModelInputError, match=message):
        fit(config(), tmp_path, CPU, resume=True)


def test_a_directory_that_holds_only_the_configuration_is_a_run_to_start(tmp_path):
    save(tmp_path / "run.json", config(epochs=1).model_dump_json().encode())
    assert fit(RunConfig.read(tmp_path), tmp_path, CPU, resume=True).outcome == "finished"


def test_a_damaged_training_state_is_named(tmp_path, capsys):
    out = tmp_path / "run"
    assert run(*FIT, "--set", "epochs=1", "--out", out) == 0
    (out / "result.json").unlink()
    (out / "last.ckpt").write_bytes((out / "last.ckpt").read_bytes()[:5000])
    assert run("fit", "--resume", "--out", out) == 1
    assert f"error: --resume: {out / 'last.ckpt'} is damaged" in capsys.readouterr().err


def test_a_run_that_was_moved_goes_on(tmp_path, recwarn):
    whole = fit(config(epochs=3), tmp_path / "whole", CPU)
    first = tmp_path / "first"
    with pytest.raises(OSError, match="could not be written"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full_at(10))
        fit(config(epochs=3), first, CPU)
    assert (first / "last.ckpt").exists()
    moved = first.rename(tmp_path / "moved")
    result = fit(config(epochs=3), moved, CPU, resume=True)
    assert result.best == whole.best
    assert result.last == whole.last
    assert not [w for w in recwarn if "dirpath" in str(w.message)]
    assert not Path(first).exists()
