"""The commands and the code of the README and of docs/ run as they stand."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from xray_data import chest_xray

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
CODE = [
    pytest.param(code, id=f"{name} {number}")
    for name, text in PAGES.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL), 1)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def test_there_are_commands_and_code():
    assert len(COMMANDS) >= 6
    assert len(CODE) >= 2


@pytest.fixture(scope="module")
def small_chest_xray(tmp_path_factory):
    """A small data set in the layout of the chest X-rays, in place of 5,840 images."""
    return chest_xray(tmp_path_factory.mktemp("data"), train=40, test=12, size=32)


@pytest.mark.parametrize(("page", "command"), [*COMMANDS, ("demo", "dia-analyze demo")])
def test_command_runs(page, command, folder, request):
    (folder / page).mkdir(exist_ok=True)
    if "cifar10 " in command:
        request.getfixturevalue("cifar10_dir")
    program, *arguments = shlex.split(command)
    module = {"dia-analyze": "cli.analyze", "dia-train": "cli.train"}[program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if page == "chest-xrays.md":
        environment["DIA_DATA_DIR"] = str(request.getfixturevalue("small_chest_xray"))
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder / page,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("code", CODE)
def test_code_runs(code, folder):
    script = f"import warnings; warnings.simplefilter('error')\n{code}"  # on its own: it may register modules
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_table_of_attention_modules_is_the_one_that_the_command_prints():
    from dia_models.attention import attention_table

    assert attention_table(256) in PAGES["attention.md"]
