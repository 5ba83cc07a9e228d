"""What a run was computed on is recorded: in its result, in its checkpoints, and where they are shown."""

import json

import pytest
import torch

import cli.common.main
import cli.train
from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.runs.result import RunResult
from dia_models.runs.run import fit
from dia_models.training.config import RunConfig
from dia_models.training.machine import Machine, _cpu, in_words, processor
from dia_models.training.recipe import load_recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = load_recipe("one_cycle", epochs=2, augment="none", training_images=64, precision="float32")
    config = RunConfig(model="cifar_resnet11", data="digits", recipe_name="one_cycle", recipe=recipe)
    return fit(config, tmp_path_factory.mktemp("machine") / "run", CPU)


def test_the_result_and_every_checkpoint_say_what_was_used(run):
    expected = {
        "precision": "float32",
        "device": "cpu",
        "processor": processor(CPU),
        "threads": torch.get_num_threads(),
        "processes": 1,
    }
    document = json.loads((run.directory / "result.json").read_text())
    assert document["machine"] == expected
    for name in ("model.safetensors", "best.safetensors"):
        assert Checkpoint.read(run.directory / name).info.machine.model_dump() == expected
    rows = (run.directory / "metrics.csv").read_text().splitlines()
    seconds = [float(row.split(",")[rows[0].split(",").index("seconds")]) for row in rows[1:]]
    assert len(seconds) == 2
    assert document["training_seconds"] == pytest.approx(sum(seconds), abs=1e-3)
    assert RunResult.read(run.directory, run.config) == run


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_the_precision_is_never_auto(precision):
    found = Machine.here(precision, CPU).precision
    assert found == precision or (precision == "auto" and found in ("float32", "bfloat16"))


def test_eval_shows_it(run, capsys):
    path = run.directory / "model.safetensors"
    assert cli.common.main.run(cli.train.app, ["eval", "--ckpt", str(path)]) == 0
    assert f"precision in training: {run.machine}" in capsys.readouterr().out
    assert str(run.machine).startswith(f"float32 on {processor(CPU)}, {torch.get_num_threads()} thread")
    assert cli.common.main.run(cli.train.app, ["eval", "--ckpt", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"] == run.machine.model_dump()


def test_what_older_versions_wrote_loads_and_says_that_it_is_not_recorded(run, tmp_path):
    assert Checkpoint.read("xray-se").info.machine is None
    assert in_words(None) == "not recorded"
    document = json.loads((run.directory / "result.json").read_text())
    del document["machine"], document["training_seconds"]
    (tmp_path / "result.json").write_text(json.dumps(document))
    old = RunResult.read(tmp_path, run.config)
    assert (old.machine, old.training_seconds) == (None, None)


@pytest.mark.parametrize(
    ("threads", "processes", "said"),
    [(1, 1, "bfloat16 on X, 1 thread"), (2, 1, "bfloat16 on X, 2 threads"), (1, 4, "1 thread in each of 4 processes")],
)
def test_in_words(threads, processes, said):
    machine = Machine(precision="bfloat16", device="cpu", processor="X", threads=threads, processes=processes)
    assert said in str(machine)


def test_the_processor_is_the_first_that_the_system_lists(tmp_path):
    assert _cpu(tmp_path / "none") == ""
    (tmp_path / "info").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz: fast\n\nmodel name\t: other\n")
    assert _cpu(tmp_path / "info") == "Some CPU @ 2 GHz: fast"
    (tmp_path / "arm").write_text("processor\t: 0\nBogoMIPS\t: 50\n")
    assert _cpu(tmp_path / "arm") == ""
