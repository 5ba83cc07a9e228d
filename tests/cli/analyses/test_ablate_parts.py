"""Where the images come from that give the means."""

import numpy as np
from PIL import Image

from cli.analyses.ablate import fit_part
from cli.common.images import select_images
from cli.common.options import DataOptions


def test_a_folder_whose_images_are_all_looked_at_has_none_beside_them(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name / f"{number}.png")
    options = DataOptions(f"folder:{tmp_path}", device="cpu", seed=0, batch_size=2, workers=1)
    assert fit_part(select_images(options, None), options, None) is None
    assert "half give the means, the others the accuracy" in capsys.readouterr().err
