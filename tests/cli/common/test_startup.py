"""What a command imports before it says that a name or a path is wrong, and what `import dia_...` costs."""

import json
import os
import subprocess
import sys

SLOW = ("lightning", "torchmetrics", "torchvision", "scipy", "sklearn", "numba", "matplotlib", "xarray", "zarr")

WITHOUT_TORCH = [
    "import dia_models, dia_analysis, figures",
    "analyze --version",
    "analyze --help",
    "analyze correlation --ckpt typo",
    "analyze correlation --ckpt nowhere/model.safetensors",
    "analyze correlation --capture nowhere.zarr",
    "analyze gini --ckpt typo",
    "analyze gradients --run nowhere",
    "analyze gradcam --ckpt digits-resnet56-se nowhere.png",
    "analyze regions --ckpt xray-se --masks nowhere",
    "analyze report --ckpt typo",
    "analyze tables --runs nowhere",
    "train eval --ckpt typo",
    "train fit --recipe typo",
    "train fit --from typo",
]
WITH_TORCH = [
    "train fit --model cifar_resnet21 --data digits",
    "analyze gradients --model typo",
    "analyze gradients --model cifar_resnet20 --set epochs=3",
    "analyze correlation --ckpt digits-resnet56-se --device gpu",
    "analyze report --ckpt digits-resnet56-se --data typo",
    "analyze cost --model typo",
    "analyze correlation --ckpt digits-resnet56-se --data typo",
    "analyze correlation --ckpt digits-resnet56-se --data cifar10 --data-dir nowhere",
    "analyze gini --ckpt digits-resnet56-se --data folder:nowhere",
    "analyze capture --ckpt digits-resnet56-se --data typo",
    "analyze gradients --ckpt digits-resnet56-se --data cifar10 --data-dir nowhere",
    "analyze gradcam --ckpt digits-resnet56-se --data cifar10 --data-dir nowhere",
    "analyze regions --ckpt xray-se --data-dir nowhere",
    "train eval --ckpt digits-resnet56-se --data cifar10 --data-dir nowhere",
    "train fit --model typo --data digits",
    "train fit --model cifar_resnet11 --data typo",
    "train fit --model cifar_resnet11 --data digits --set epoch=3",
    "train fit --model cifar_resnet11 --data cifar10 --data-dir nowhere",
    "train sweep typo",
    "train sweep table04 --data-dir nowhere",
]

SCRIPT = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
import cli.analyze, cli.common.main, cli.train

loaded = {}
for line in json.loads(sys.argv[1]):
    program, *arguments = line.split()
    if program == "import":
        exec(line)
    else:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
            code = cli.common.main.run(getattr(cli, program).app, arguments)
        assert code == (0 if arguments[0].startswith("--") else 1), (line, code, said.getvalue())
        assert all(len(text) <= 300 for text in said.getvalue().splitlines()), said.getvalue()
    loaded[line] = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps(loaded))
"""


def imported(lines, names):
    """After each of these lines, run one after the other in one process, which of the packages are imported."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, json.dumps(lines), json.dumps(names)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_wrong_name_or_path_is_told_before_torch_is_imported_or_at_least_before_anything_slower():
    loaded = imported([*WITHOUT_TORCH, *WITH_TORCH], ["torch", *SLOW])
    assert {line: loaded[line] for line in WITHOUT_TORCH if loaded[line]} == {}
    assert {line: loaded[line] for line in WITH_TORCH if loaded[line] not in ([], ["torch"])} == {}
