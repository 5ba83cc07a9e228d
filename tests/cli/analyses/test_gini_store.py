"""dia-analyze gini from a capture store."""

import json

import pytest

from tests.support.commands import SE, analyze, failure, plain_checkpoint

pytestmark = pytest.mark.usefixtures("_shortened")


@pytest.mark.usefixtures("_undrawn")
def test_a_store_gives_the_same_numbers_as_the_network(tmp_path, capsys):
    store, options = tmp_path / "maps.zarr", ("--json", "--seed", 3)
    plain_checkpoint(tmp_path / "net.safetensors", "cifar_resnet20_se")
    given = ("--ckpt", tmp_path / "net.safetensors", "--data", "digits", "--images", 6)
    assert analyze("capture", *given, "--seed", 3, "--out", store) == 0
    capsys.readouterr()
    assert analyze("gini", *given, *options, "--out", tmp_path / "a") == 0
    expected = json.loads(capsys.readouterr().out)
    assert analyze("gini", "--capture", store, *options, "--out", tmp_path / "b") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stages"] == expected["stages"]
    assert found["vector"] == expected["vector"]
    assert found["untrained"] is None
    assert expected["untrained"].keys() == {"centred", "vector"}
    assert (found["checkpoint"], found["images"]) == ("net", 6)
    assert (tmp_path / "a" / "images.txt").read_text() == (tmp_path / "b" / "images.txt").read_text()


def test_a_store_or_a_checkpoint_not_both_and_not_neither(tmp_path, capsys):
    assert analyze("gini") == 2
    (tmp_path / "maps.zarr").mkdir()
    assert analyze("gini", "--ckpt", SE, "--capture", tmp_path / "maps.zarr") == 2
    assert analyze("gini", "--capture", tmp_path / "maps.zarr", "--images", 3) == 2
    assert "the store's images and layers are taken" in " ".join(capsys.readouterr().err.split())
    assert "maps.zarr" in failure(capsys, analyze("gini", "--capture", tmp_path / "maps.zarr"))
