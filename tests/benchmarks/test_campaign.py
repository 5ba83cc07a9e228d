"""A plan of trainings does what is not done, stops in time, and goes on."""

import json
import signal
import sys

import pytest

from benchmarks import campaign

PLAN = """
[defaults]
data = "digits"
recipe = "one_cycle"
set = { epochs = 1, training_images = 32, batch_size = 16 }
[[run]]
name = "plain"
model = "cifar_resnet11"
hours = 0.01
[[run]]
name = "attention"
model = "cifar_resnet11_se"
seed = 3
hours = 9
"""


FIT = """
import json, pathlib, sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder = pathlib.Path(given["--out"])
if "--model" in given:
    folder.mkdir(parents=True)
    run = {"model": given["--model"], "data": given["--data"], "seed": int(given["--seed"]), "options": {}}
    (folder / "run.json").write_text(json.dumps(run | {"recipe_name": given["--recipe"], "recipe": RECIPE}))
time.sleep(0 if given.get("--model") == "cifar_resnet11" else 600)
(folder / "result.json").write_text(json.dumps({"last": {"test_accuracy": 0.5}}))
"""


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    (tmp_path / "plan.toml").write_text(PLAN)
    recipe = {"epochs": 1, "training_images": 32, "batch_size": 16}
    (tmp_path / "fit.py").write_text(FIT.replace("RECIPE", repr(recipe)))
    monkeypatch.setattr(campaign, "FIT", [sys.executable, str(tmp_path / "fit.py")])

    def called(*options):
        where = ["--plan", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", ["campaign", *where, *options])
        code = campaign.main()
        return code, capfd.readouterr()

    return called


@pytest.fixture
def _in_background():
    """Interrupts are ignored there, by the processes that are started too."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_in_background")
def test_what_is_done_is_left_what_is_begun_goes_on_and_time_is_kept(call, tmp_path):
    code, said = call("--list")
    assert (code, said.out.count("not run")) == (0, 2)
    code, said = call("--hours", "0.001")
    assert code == 0
    assert "plain                         0.01 h  done: " in said.out
    assert "attention                     9.00 h  begun" in said.out
    assert said.out.endswith("9.0 hours are left\n")
    before = (tmp_path / "runs/plain/result.json").stat().st_mtime_ns
    assert call("--hours", "0")[0] == 0
    assert (tmp_path / "runs/plain/result.json").stat().st_mtime_ns == before


def test_a_folder_of_another_run_is_said_before_anything_is_trained(call, tmp_path):
    (tmp_path / "runs/attention").mkdir(parents=True)
    found = {"model": "cifar_resnet11", "options": {}, "recipe": {}, "recipe_name": "one_cycle"}
    (tmp_path / "runs/attention/run.json").write_text(json.dumps(found))
    code, said = call()
    assert code == 2
    assert "has model cifar_resnet11, the plan cifar_resnet11_se" in said.err
    assert not (tmp_path / "runs/plain").exists()


def test_the_plan_that_is_kept_can_be_read():
    runs = campaign.read_plan(campaign.PLAN)
    assert len({run.name for run in runs}) == len(runs)
    assert runs[0].options()[:4] == ["--model", "cifar_resnet56_se", "--data", "cifar100"]
    assert "--set" in runs[0].options()
    assert runs[0].set["epochs"] == 24
