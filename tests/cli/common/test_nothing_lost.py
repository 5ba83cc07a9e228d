"""Two commands at once, an existing folder, a full disk, an interruption, a closed pipe: no result is lost."""

import errno
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Barrier, Event

import pytest
import zarr
from matplotlib.figure import Figure

import cli.common.main
from cli.common.pipe import NotPrintedError, Pipe
from cli.common.publish import Out, default_name
from dia_analysis import CaptureStore
from dia_analysis.results.output import file_name, first_free, hold, take
from dia_analysis.results.style import save_figure
from dia_analysis.store.writer import _rounded
from dia_models.checkpoints.names import distinct_names
from dia_models.training.files import lock_directory
from tests.support.commands import SE, analyze, failure, images, plain_checkpoint, train
from tests.support.sweep_results import BETTER, WORSE, result

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def network(tmp_path):
    """A run's folder with a network of two classes, and images of these."""
    (tmp_path / "run").mkdir()
    plain_checkpoint(tmp_path / "run" / "model.safetensors", "cifar_resnet20_se")
    folder = images(tmp_path, 4)
    for label, number in (("no", 0), ("no", 1), ("yes", 2), ("yes", 3)):
        (folder / label).mkdir(exist_ok=True)
        (folder / f"{number}.png").rename(folder / label / f"{number}.png")
    return tmp_path / "run" / "model.safetensors", f"folder:{folder}"


def commands(network):
    """Every command that measures networks and writes a folder, on small inputs, and a word of what it finds."""
    ckpt, data = network
    seen = ("--ckpt", ckpt, "--data", data)
    return {
        "correlation": (analyze, seen, "Pearson r between"),
        "gini": (analyze, seen, "Gini importance"),
        "gradients": (analyze, seen, "Absolute gradient"),
        "gradcam": (analyze, (*seen, "--images", 2), "predicted"),
        "cost": (analyze, ("--ckpt", ckpt, "--rounds", 6, "-b", 1), "The paper's ratios"),
        "eval": (train, seen, "on 4 images"),
    }


@pytest.fixture(params=["correlation", "gini", "gradients", "gradcam", "cost", "eval"])
def command(request, network, _undrawn):
    """A command without --out, and a word of what it finds."""
    run, arguments, word = commands(network)[request.param]
    return lambda *more: run(request.param, *arguments, *more), word


def test_a_full_disk_and_a_folder_in_use(command, tmp_path, monkeypatch, capsys):
    run, word = command
    out = tmp_path / "results" / "out"
    with hold(out):
        assert f"--out: {out} is being written by another command" in failure(capsys, run("--out", out))
    with monkeypatch.context() as patch:
        patch.setattr("dia_analysis.results.output.write_json", full)
        assert run("--out", out) == 1
    found, err = capsys.readouterr()
    assert word in found
    assert [line for line in err.splitlines() if "rror" in line] == [
        f"error: --out: {out} could not be written: No space left on device; choose another folder"
    ]
    assert not out.parent.exists()
    assert run("--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["schema"].startswith("dia.")
    before = (out / "manifest.json").read_bytes()
    assert f"--out: {out} exists; choose another folder, or overwrite it" in failure(capsys, run("--out", out))
    assert (out / "manifest.json").read_bytes() == before


def full(*_, **__):
    raise FULL


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mounted, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("only root may mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("name", ["correlation", "gradients", "gradcam"])
def test_a_disk_of_64_kilobytes(name, network, tiny_disk, capsys):
    run, arguments, word = commands(network)[name]
    for out in (tiny_disk, tiny_disk / "out"):
        assert run(name, *arguments, "--out", out) == 1
        found, err = capsys.readouterr()
        assert word in found
        assert err.splitlines()[-1].startswith(f"error: --out: {out} could not be written: No space left on device")
        assert not list(tiny_disk.iterdir())


def test_a_disk_that_is_full_when_the_pdf_is_drawn(tiny_disk, tmp_path):
    """Matplotlib's own error hides why it cannot draw into a file."""
    (tiny_disk / "figure.png").symlink_to(tmp_path / "figure.png")
    with suppress(OSError):
        (tiny_disk / "filler").write_bytes(bytes(2**17))
    figure = Figure()
    figure.subplots().plot([0, 1])
    with pytest.raises(OSError, match="No space left on device"):
        save_figure(figure, tiny_disk / "figure")
    assert (tmp_path / "figure.png").stat().st_size


def test_a_store_on_a_disk_of_64_kilobytes(network, tiny_disk, capsys):
    ckpt, data = network
    out = tiny_disk / "maps.zarr"
    assert analyze("capture", "--ckpt", ckpt, "--data", data, "-b", 1, "--out", out) == 1
    assert "could not be written: No space left on device" in failure(capsys, 1)


def test_a_full_disk_in_the_middle_of_a_capture(network, tmp_path, capsys, monkeypatch):
    ckpt, data = network
    run = ("capture", "--ckpt", ckpt, "--data", data, "-b", 1, "--out", tmp_path / "maps.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", after(15, zarr.Array.__setitem__, full))  # in the second batch
        message = failure(capsys, analyze(*run))
    assert "No space left on device; what is captured stays; make room, then resume" in message
    assert analyze(*run, "--resume") == 0
    assert CaptureStore.open(tmp_path / "maps.zarr").captured == 4


def after(count, action, then):
    """The action for so many calls, `then` from there on."""
    calls = []

    def counted(*given):
        calls.append(given)
        return action(*given) if len(calls) <= count else then()

    return counted


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (("correlation", "--ckpt", SE), "cli.analyses.correlation.measure"),
        (("gini", "--ckpt", SE), "cli.analyses.gini.importance_of"),
        (("gradients", "--model", "cifar_resnet11"), "cli.analyses.gradients.measure"),
        (("gradcam", "--ckpt", SE), "cli.analyses.gradcam.explain"),
        (("regions", "--ckpt", SE), "cli.analyses.regions.look"),
        (("cost", "--ckpt", SE), "cli.analyses.cost.measure_cost"),
        (("demo",), "figures.pages.measured.correlations"),
        (("tables", "--runs", "."), "cli.analyses.tables.read_sweeps"),
        (("figures", "--runs", "."), "cli.analyses.tables.read_sweeps"),
    ],
)
def test_an_interrupt_is_one_line_and_leaves_nothing(command, where, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(where, interrupt)
    assert analyze(*command, "--out", tmp_path / "deep" / "out") == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"interrupted; nothing was written to {tmp_path}/deep/out"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["gini", "eval", "report", "sweep"])
def test_commands_that_share_nothing_refuse_several_processes(command, network, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    out = ("--out", tmp_path / ("page.html" if command == "report" else "out"))
    ckpt, data = network
    given = ("table04", "--scale", "laptop") if command == "sweep" else ("--ckpt", ckpt, "--data", data)
    run = train if command in ("eval", "sweep") else analyze
    assert run(command, *given, *out) == 1
    assert capsys.readouterr().err.startswith("error: this command runs in one process; start it without torchrun")
    assert not out[1].exists()


def test_an_interrupt_elsewhere_is_one_line_too(monkeypatch, capsys):
    monkeypatch.setattr("cli.runs.models.print_models", interrupt)
    assert train("models") == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"
    monkeypatch.setattr("typer.main.get_command", interrupt)  # before the command line is read
    assert train("models") == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_an_interrupt_that_a_library_loses_is_one_line_too(monkeypatch, capsys):
    """As numpy's, interrupted while torch imports it, which then recurses without end."""

    def lose():
        with suppress(KeyboardInterrupt):
            cli.common.main.interrupt(signal.SIGINT, None)
        raise RecursionError

    monkeypatch.setattr("cli.common.main._interrupt_came", Event())
    monkeypatch.setattr("cli.runs.models.print_models", lambda *_, **__: lose())
    assert train("models") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interrupted_capture_says_how_to_go_on(network, tmp_path, capsys, monkeypatch):
    ckpt, data = network
    out = tmp_path / "maps.zarr"
    run = ("capture", "--ckpt", ckpt, "--data", data, "-b", 1, "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr("dia_analysis.store.writer.stream_share", interrupt)
        assert analyze(*run) == 130
        assert capsys.readouterr().err.splitlines()[-1] == f"interrupted; nothing was written to {out}"
    with monkeypatch.context() as patch:
        patch.setattr("dia_analysis.store.writer._rounded", after(3, _rounded, interrupt))  # in the second batch
        assert analyze(*run) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"interrupted; what is captured is kept in {out}; to continue, run it again with --resume --out {out}"
    )
    assert analyze(*run, "--resume") == 0
    assert CaptureStore.open(out).captured == 4


@pytest.mark.usefixtures("_undrawn")
def test_default_folders_are_numbered_and_overwritten_on_request(network, tmp_path, monkeypatch, capsys):
    ckpt, data = network
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cli.analyses.correlation.draw", lambda *_: {})
    run = ("correlation", "--ckpt", ckpt, "--data", data)
    for end in ("", "-2"):
        assert analyze(*run) == 0
        out, err = capsys.readouterr()
        assert f"written to dia-out/correlation-run-images{end}/" in err
        assert out.startswith("run on 4 images")
    with hold(Path("dia-out/correlation-run-images-3")):
        assert analyze(*run) == 0
    (tmp_path / "dia-out" / "correlation-run-images" / "mine").touch()
    assert analyze(*run, "--overwrite") == 0
    assert not (tmp_path / "dia-out" / "correlation-run-images" / "mine").exists()
    assert sorted(p.name for p in Path("dia-out").iterdir()) == [
        f"correlation-run-images{end}" for end in ("", "-2", "-4")
    ]


def test_ten_at_once_get_ten_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = Barrier(10)

    def one(number):
        with ExitStack() as held:
            start.wait()
            taken = first_free(Out(None).paths("demo"), lambda path: held.enter_context(take(path)))
            with taken.filled({"number": number}):
                pass
        return taken.path

    with ThreadPoolExecutor(10) as pool:
        paths = list(pool.map(one, range(10)))
    assert len(set(paths)) == 10
    assert [json.loads((path / "manifest.json").read_text())["number"] for path in paths] == list(range(10))
    assert {p.name for p in Path("dia-out").iterdir()} == {"demo", *(f"demo-{n}" for n in range(2, 11))}


def test_a_run_is_trained_by_one_command(tmp_path, capsys):
    out, small = tmp_path / "run", ("--set", "epochs=1", "--set", "training_images=64")
    fit = ("fit", "--model", "cifar_resnet11", "--data", "digits", *small, "--out", out)
    refused = f"--out: {out} is being written by another command; choose another folder"
    with lock_directory(out):
        assert refused in failure(capsys, train(*fit))
    assert not out.exists()
    assert train(*fit) == 0
    capsys.readouterr()
    (out / "result.json").unlink()
    with lock_directory(out):
        assert refused in failure(capsys, train("fit", "--resume", "--out", out))
    (out / ".lock").touch()  # of a process that was killed
    capsys.readouterr()
    assert train("fit", "--resume", "--out", out) == 0
    assert not (out / ".lock").exists()


def test_runs_have_default_folders_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dia_models.runs.training_run.TrainingRun.start", interrupt)
    fit = ("fit", "--model", "cifar_resnet11", "--data", "digits", "--set", "training_images=64", "--seed", 3)
    with hold(Path("dia-out/fit-cifar_resnet11-seed3-digits")):
        assert train(*fit) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted; nothing was trained yet"
    assert not list(tmp_path.iterdir())


def test_tables_and_figures_replace_nothing_unasked(tmp_path, capsys):
    (tmp_path / "sweep.json").write_text(json.dumps(result(SE=WORSE, **{"DIA-LSTM": BETTER}).to_dict()))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "table04-paper.md").write_text("mine")
    for name in ("tables", "figures"):
        run = (name, "--runs", tmp_path, "--out")
        assert "mine exists; choose another folder" in failure(capsys, analyze(*run, mine))
        assert "mine holds something else than results" in failure(capsys, analyze(*run, mine, "--overwrite"))
    assert [(p.name, p.read_text()) for p in mine.iterdir()] == [("table04-paper.md", "mine")]
    run = ("tables", "--runs", tmp_path, "--out", tmp_path / "new")
    assert analyze(*run) == 0
    capsys.readouterr()
    assert "exists" in failure(capsys, analyze(*run))
    assert analyze(*run, "--overwrite") == 0
    assert analyze("figures", "--runs", tmp_path, "--out", tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()  # there is nothing to draw


def test_one_rule_for_names(tmp_path):
    for name in ("a/run/model", "b/run/model", "b/run/best", "b/run/epoch-0001", "b/other/model"):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def named(*given):
        return distinct_names([str(tmp_path / f"{each}.safetensors") for each in given])

    assert named("a/run/model") == ["run"]
    assert named("b/run/model", "b/other/model", "b/run/epoch-0001") == ["run", "other", "epoch-0001"]
    assert named("b/run/model", "b/run/best") == ["run/model", "run/best"]
    assert named("a/run/model", "b/run/model") == ["a/run", "b/run"]
    assert named("a/run/model", "b/run/model", "b/run/best") == ["a/run/model", "b/run/model", "b/run/best"]
    assert named("a/run/model", "a/run/model", "b/other/model") == ["run", "run (2)", "other"]
    assert distinct_names([SE, "my.net.safetensors"]) == [SE, "my.net"]


def test_default_names_are_short_and_tell_what_is_in_them():
    assert default_name("cost", ["a", "b"], None) == "cost-a-b"
    assert default_name("gini", ["runs/a"], "folder:/home/me/cats and dogs/") == "gini-runs-a-cats-and-dogs"
    long = [default_name("gini", [f"{'é' * 300}{end}", *"abc" * 100], f"folder:/{'x' * 300}") for end in "12"]
    assert all(len(name.encode()) < 200 for name in long)
    assert long[0] != long[1]
    assert file_name("a b/c") == "a-b-c"


@pytest.mark.usefixtures("_undrawn")
def test_an_image_with_a_name_of_240_characters(network, tmp_path, capsys):
    ckpt, _ = network
    long = tmp_path / f"{'n' * 236}.png"
    (tmp_path / "images" / "no" / "0.png").rename(long)
    assert analyze("gradcam", "--ckpt", ckpt, long, "--out", tmp_path / "out") == 0
    (overlay,) = (tmp_path / "out" / "overlays").iterdir()
    assert len(overlay.name) < 200


FEW = "cifar_resnet11*"


@pytest.fixture
def closed_pipe(monkeypatch):
    """Standard output is a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        yield


@pytest.mark.parametrize("arguments", [("models", FEW), ("--help",), ("models", FEW, "--json")])
def test_a_closed_pipe_is_no_error(closed_pipe, capfd, arguments):
    assert train(*arguments) == 0
    assert capfd.readouterr().err == ""


def test_what_nobody_reads_is_written_to_files(closed_pipe, network, tmp_path):
    ckpt, data = network
    assert train("eval", "--ckpt", ckpt, "--data", data, "--json", "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["images"] == 4


class Broken:
    """A stream on a full disk."""

    def write(self, *_):
        raise FULL

    flush = fileno = write


def test_what_cannot_be_printed_is_written_all_the_same(network, tmp_path, monkeypatch, capsys):
    with pytest.raises(NotPrintedError, match="could not be printed: No space left on device"):
        Pipe(Broken()).write("a")
    ckpt, data = network
    monkeypatch.setattr(sys, "stdout", Broken())
    assert train("eval", "--ckpt", ckpt, "--data", data, "--out", tmp_path / "out") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: the output could not be printed: No space left on device"
    )
    assert (tmp_path / "out" / "eval.json").exists()
