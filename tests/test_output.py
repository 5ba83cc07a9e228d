"""Result directories are complete or absent, and never overwritten unasked."""

import hashlib
import json

import pytest

from dia_analysis import AnalysisInputError
from dia_analysis.output import new_directory


def write(path, text="new", **options):
    with new_directory(path, {"about": 1}, **options) as folder:
        (folder / "a.txt").write_text(text)


def test_a_new_directory_has_a_manifest_with_the_hash_of_every_file(tmp_path):
    write(tmp_path / "deep" / "out")
    manifest = json.loads((tmp_path / "deep" / "out" / "manifest.json").read_text())
    assert manifest["about"] == 1
    assert manifest["files"] == {"a.txt": hashlib.sha256(b"new").hexdigest()}


def test_an_existing_directory_is_refused_and_left_alone(tmp_path):
    write(tmp_path / "out", "old")
    with pytest.raises(AnalysisInputError, match="out exists; choose another folder, or replace it with --overwrite"):
        write(tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "old"


def test_overwrite_replaces_the_whole_directory(tmp_path):
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "b.txt").write_text("old")
    write(tmp_path / "out", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.txt", "manifest.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_directory_of_something_else_is_never_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(AnalysisInputError, match="holds something else than results"):
        write(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_empty_directory_is_as_good_as_none(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "new"


def test_a_failure_leaves_what_was_there(tmp_path):
    write(tmp_path / "out", "old")
    with pytest.raises(RuntimeError), new_directory(tmp_path / "out", {}, overwrite=True) as folder:
        (folder / "a.txt").write_text("half")
        raise RuntimeError
    assert (tmp_path / "out" / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
