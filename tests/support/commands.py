"""The commands, run in this process, and what they are given."""

import re

import numpy as np
from PIL import Image

import cli.analyze
import cli.common.main
import cli.train

SE, LSTM = "digits-resnet56-se", "digits-resnet56-dia-lstm"


def analyze(*arguments):
    return cli.common.main.run(cli.analyze.app, [str(a) for a in arguments])


def train(*arguments):
    return cli.common.main.run(cli.train.app, [str(a) for a in arguments])


def failure(capsys, code):
    assert code == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert re.match(r"error: (--|[A-Z]+: )", lines[-1])
    assert "Traceback" not in err
    return lines[-1]


def plain_checkpoint(path, model="cifar_resnet11", classes=("no", "yes")):
    from dia_models import CheckpointInfo, create_model, save_checkpoint
    from dia_models.data import Preprocessing

    network = create_model(model, num_classes=len(classes))
    info = CheckpointInfo(
        model=network.spec,
        data="folder:nowhere",
        classes=classes,
        preprocessing=Preprocessing(height=16, width=16, mean=(0.5,) * 3, std=(0.2,) * 3),
    )
    save_checkpoint(path, network, info)


def images(tmp_path, count):
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(random.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder
