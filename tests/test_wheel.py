"""A wheel holds every file of the packages: weights, recipes, sweeps, stubs and templates too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("dia_models", "dia_analysis", "figures", "cli")
LIST_OF_FILES = """
import json, setuptools
distribution = setuptools.Distribution({"script_name": "setup.py"})
distribution.parse_config_files()
distribution.include_package_data = False  # would take what lies about; pyproject.toml is to name all
command = distribution.get_command_obj("build_py")
command.ensure_finalized()
modules = [path for *_, path in command.find_all_modules()]
data = [f"{source}/{name}" for _, source, _, names in command.data_files for name in names]
print(json.dumps(modules + data))
"""


def test_a_wheel_holds_every_file_of_the_packages():
    pytest.importorskip("setuptools", minversion="77", reason="older ones cannot read pyproject.toml")
    done = subprocess.run([sys.executable, "-c", LIST_OF_FILES], cwd=ROOT, capture_output=True, text=True, check=True)
    packed = {Path(path) for path in json.loads(done.stdout)}
    there = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    assert {path for path in there if "__pycache__" not in path.parts} - packed == set()
