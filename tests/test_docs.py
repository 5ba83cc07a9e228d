"""The commands and the code of the README and of docs/ run as they stand."""

import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cli.analyze
import cli.common.main
import cli.train
from dia_models import open_network
from tests.support.xray_data import chest_xray

ROOT = Path(__file__).parents[1]
PAGES = {
    path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
COMMANDS = [
    pytest.param(name, line.removeprefix("$ "), id=f"{name}: {line}")
    for name, text in PAGES.items()
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]
CODE = [(name, code) for name, text in PAGES.items() for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
NEEDS = re.compile(r"# needs (\w+)\n")  # the first line of code for a package that is not always there


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all pages, and in it one for the commands of each, with the files that the page shows or names."""
    folder = tmp_path_factory.mktemp("readme")
    for name, text in PAGES.items():
        shown = re.findall(r'```python title="(\w+\.py)"\n(.*?)```', text, re.DOTALL)
        for place in (folder, folder / name):
            place.mkdir(exist_ok=True)
            for file, code in shown:
                (place / file).write_text(code, encoding="utf-8")
            if "folder:photos" in text:
                _put_photos(place / "photos")
    _put_weights(folder / "any-network.md", "net.py:Net", "net.pth")
    for place in (folder, folder / "README.md"):
        _put_weights(place, "timm:seresnet50", "mine.pth", num_classes=2, image_size=32)
    return folder


def _put_photos(folder):
    for number in range(8):
        place = folder / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (48, 40, 3), np.uint8)).save(
            place / f"{number}.png"
        )


def _put_weights(folder, name, file, **given):
    network = open_network(str(folder / name) if ".py" in name else name, **given)
    torch.save(network.model.state_dict(), folder / file)


def test_there_are_commands_and_code():
    assert len(COMMANDS) >= 6
    assert len(CODE) >= 2


@pytest.fixture(scope="module")
def small_chest_xray(tmp_path_factory):
    """A small data set in the layout of the chest X-rays, in place of 5,840 images."""
    return chest_xray(tmp_path_factory.mktemp("data"), train=40, test=12, size=32)


@pytest.fixture
def _few_scenes(monkeypatch):
    """A few scenes of digits, in place of 1,250."""
    monkeypatch.setattr("dia_models.data.detection.digit_scenes.SCENES", {"train": 40, "test": 10})


def run_inside(arguments, capsys):
    """Run a command in this process: starting one for each would take most of the time."""
    program, *rest = arguments
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code = cli.common.main.run({"dia-analyze": cli.analyze.app, "dia-train": cli.train.app}[program], rest)
    return code, capsys.readouterr()


@pytest.mark.usefixtures("_shortened", "_few_scenes", "_quick_workers", "_undrawn")  # pages draw their own figures
@pytest.mark.parametrize(("page", "command"), [*COMMANDS, ("demo", "dia-analyze demo")])
def test_command_runs(page, command, folder, request, monkeypatch, capsys):
    (folder / page).mkdir(exist_ok=True)
    monkeypatch.chdir(folder / page)
    if "cifar10 " in command:
        monkeypatch.setenv("DIA_DATA_DIR", str(request.getfixturevalue("cifar10_dir")))
    if page == "chest-xrays.md":
        monkeypatch.setenv("DIA_DATA_DIR", str(request.getfixturevalue("small_chest_xray")))
    code, printed = run_inside(shlex.split(command), capsys)
    assert code == 0, printed.err
    assert printed.out
    assert "Warning" not in printed.err


def test_the_installed_commands_start():
    for program in ("dia-analyze", "dia-train"):
        module = f"cli.{program.removeprefix('dia-')}"
        done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("dia-analysis ")


# Forks a process for each page, since its code may register modules, from one that has imported the packages; each
# piece of code by itself.
RUN_PAGES = """
import json, os, sys, traceback, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="lightning")  # of its own code, and of how many workers a loader has
import dia_analysis.correlation.measure, dia_analysis.importance.measure, dia_models.runs.training_run
import figures, matplotlib.pyplot, numba, xarray
for line in sys.stdin:
    pieces, stdout, stderr = json.loads(line)
    if (pid := os.fork()) == 0:
        code = 1
        try:
            sys.stdout, sys.stderr = open(stdout, "w"), open(stderr, "w")
            for piece in pieces:
                exec(piece, {})
                print("#")
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.__stdout__.write(f"{os.waitpid(pid, 0)[1]}\\n")
    sys.__stdout__.flush()
"""


@pytest.fixture(scope="module")
def run_page(folder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", RUN_PAGES], cwd=folder, env=environment, **pipes) as process:

        def run(*job):
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            return process.stdout.readline()

        yield run


@pytest.mark.parametrize(
    ("page", "needed"), dict.fromkeys((page, found[1] if (found := NEEDS.match(code)) else None) for page, code in CODE)
)
def test_code_runs(page, needed, run_page, tmp_path):
    if needed is not None:
        pytest.importorskip(needed, reason=f"the code is for {needed}, which is not installed")
    first = "" if needed is None else f"# needs {needed}"
    pieces = [c for name, c in CODE if name == page and (NEEDS.match(c) is None) == (needed is None) and first in c]
    status = run_page(pieces, str(tmp_path / "stdout"), str(tmp_path / "stderr"))
    assert status == "0\n", (tmp_path / "stderr").read_text()
    printed = (tmp_path / "stdout").read_text().split("#\n")
    assert len(printed) == len(pieces) + 1
    assert all(printed[:-1])


def test_the_table_of_attention_modules_is_the_one_that_the_command_prints():
    from dia_models.attention import attention_table

    assert attention_table(256) in PAGES["attention.md"]
