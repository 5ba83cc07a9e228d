"""The commands and the code of the README run as they stand."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
DOCS = {page.stem: page.read_text(encoding="utf-8") for page in (Path(__file__).parents[1] / "docs").glob("*.md")}
PAGES = "\n".join([README, *(text for _, text in sorted(DOCS.items()))])
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGES, re.DOTALL)
    for line in block.splitlines()
]
ATTENTION = DOCS["attention"]
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
def test_code_runs(code):
    script = f"import warnings; warnings.simplefilter('error')\n{code}"  # on its own: it may register modules
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_attention_module_is_in_the_table():
    from dia_models.attention import attention_names

    own = {name for name in attention_names() if name.removeprefix("dia_") not in attention_names()}
    own |= {name for name in attention_names() if not name.startswith("dia_")}
    assert own == set(re.findall(r"^\| `(\w+)` \|", ATTENTION, re.MULTILINE))
