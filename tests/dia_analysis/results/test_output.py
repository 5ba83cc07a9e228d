"""Result directories are complete or absent, and never overwritten unasked."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from dia_analysis import AnalysisInputError
from dia_analysis.results.output import TakenError, new_directory, take


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
    with pytest.raises(AnalysisInputError, match="out exists; choose another folder, or overwrite it"):
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


def test_a_folder_that_is_being_written_is_refused_at_once(tmp_path):
    with take(tmp_path / "out") as first:
        with pytest.raises(TakenError, match="out is being written by another command; choose another folder"):
            write(tmp_path / "out")
        with first.filled({}) as folder:
            (folder / "a.txt").write_text("first")
    assert (tmp_path / "out" / "a.txt").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_is_taken_and_not_filled_leaves_nothing(tmp_path):
    with take(tmp_path / "deep" / "out"):
        assert (tmp_path / "deep").is_dir()
    assert not list(tmp_path.iterdir())


def test_what_came_in_the_meantime_is_not_replaced(tmp_path):
    with take(tmp_path / "out") as taken:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("years of work")
        with pytest.raises(TakenError, match="out exists"), taken.filled({}) as folder:
            (folder / "a.txt").write_text("new")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_what_a_killed_process_left_is_not_in_the_way(tmp_path):
    for name in (".out.0123abcd.draft", ".out.old", ".out.b.0123abcd.draft"):
        write(tmp_path / name, name)
    (tmp_path / ".out.lock").touch()
    with pytest.raises(TakenError, match="exists"):  # it was killed while it replaced results, which are there again
        write(tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == ".out.old"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.b.0123abcd.draft", "out"]  # one is of another folder


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path, monkeypatch):
    """It may be a mounted disk, or the only folder that may be written to."""
    (tmp_path / "out").mkdir()
    before = (tmp_path / "out").stat().st_ino
    monkeypatch.chdir(tmp_path / "out")
    with take(Path()), pytest.raises(TakenError, match="is being written"):
        write(tmp_path / "out")
    write(Path())
    assert (tmp_path / "out").stat().st_ino == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.txt", "manifest.json"]


@pytest.mark.parametrize("length", [199, 240, 255])
def test_long_names(tmp_path, length):
    write(tmp_path / ("n" * length))
    assert [len(p.name) for p in tmp_path.iterdir()] == [length]


def test_what_cannot_be_written_is_one_line_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for path, why in ((tmp_path / ("n" * 256), "File name too long"), (tmp_path / "file" / "out", "file is a file")):
        with pytest.raises(AnalysisInputError, match=f"could not be written: .*{why}; choose another folder"):
            write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_becomes_full(tmp_path):
    write(tmp_path / "out", "old")
    said = "out could not be written: No space left on device; choose another folder"
    with pytest.raises(AnalysisInputError, match=said) as raised, new_directory(tmp_path / "out", {}, overwrite=True):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.argument == "out"
    assert (tmp_path / "out" / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_replacement_brings_the_old_results_back(tmp_path, monkeypatch):
    write(tmp_path / "out", "old")
    replace = Path.replace

    def interrupted(self, target):
        if self.name.endswith(".draft"):
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
