"""The commands and the code of the README run as they stand."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ATTENTION = (ROOT / "docs" / "attention.md").read_text(encoding="utf-8")
PAGES = README + "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGES, re.DOTALL)
    for line in block.splitlines()
]
CODE = re.findall(r"```python\n(.*?)```", PAGES, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def test_the_readme_has_commands_and_code():
    assert len(COMMANDS) >= 6
    assert len(CODE) >= 2


@pytest.mark.parametrize("command", [*COMMANDS, "dia-analyze demo"])
def test_command_runs(command, folder, request):
    if "cifar10 " in command:
        request.getfixturevalue("cifar10_dir")
    program, *arguments = shlex.split(command)
    module = {"dia-analyze": "cli.analyze", "dia-train": "cli.train"}[program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
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


def test_every_attention_module_is_in_the_table():
    from dia_models.attention import attention_names

    own = {name for name in attention_names() if name.removeprefix("dia_") not in attention_names()}
    own |= {name for name in attention_names() if not name.startswith("dia_")}
    assert own == set(re.findall(r"^\| `(\w+)` \|", ATTENTION, re.MULTILINE))
