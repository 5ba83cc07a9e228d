"""Where the images come from that give the means, and what the command suggests."""

import numpy as np
import pytest
from PIL import Image

from cli.analyses.ablate import fit_part
from cli.common.images import select_images
from cli.common.options import DataOptions
from tests.support.commands import SE, analyze


def test_a_folder_whose_images_are_all_looked_at_has_none_beside_them(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name / f"{number}.png")
    options = DataOptions(f"folder:{tmp_path}", device="cpu", seed=0, batch_size=2, workers=1)
    assert fit_part(select_images(options, None), options, None) is None
    assert "half give the means, the others the accuracy" in capsys.readouterr().err


@pytest.mark.usefixtures("_undrawn")
def test_gates_that_are_mostly_fixed_suggest_to_fold_them(capsys, tmp_path):
    given = ("--images", "140", "--fit-images", "60", "--replace-by", "mean", "--layers", "all")
    assert analyze("ablate", "--ckpt", SE, *given, "--out", tmp_path / "out") == 0
    assert "dia-train fold --ckpt digits-resnet56-se --data digits" in capsys.readouterr().out
