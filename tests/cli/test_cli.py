"""The commands: what they print, what they write, how they fail."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dia_analysis import capture
from dia_models import Checkpoint
from dia_models.data import evenly_spaced, open_data
from tests.support.commands import LSTM, SE, analyze, failure, images, plain_checkpoint, train


@pytest.mark.parametrize("command", ["analyze", "train"])
def test_help_imports_neither_torch_nor_numpy(command):
    script = (
        f"import sys, cli.{command} as c, cli.common.main\n"
        "code = cli.common.main.run(c.app, ['--help'])\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'lightning', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_command_that_does_not_exist_is_a_usage_error():
    assert analyze("corelation") == 2
    assert analyze("correlation") == 2
    assert train("fit", "--epochs", "3") == 2


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A network of six layers and four images, and no figures: what a command does with them is quickly done."""
    monkeypatch.setattr("cli.analyses.correlation.draw", lambda *_: {})
    plain_checkpoint(tmp_path / "small.safetensors", "cifar_resnet20_dia_lstm")
    return "--ckpt", tmp_path / "small.safetensors", "--data", f"folder:{images(tmp_path, 4)}"


def test_correlation_prints_tables_and_writes_everything(tmp_path, capsys):
    assert analyze("correlation", "--ckpt", SE, "--images", 40, "--out", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert f"{SE} on 40 images of digits" in out
    for statistics in ("as saved", "re-estimated on 40 of the measured images"):
        weights = f"(weights: random, with the run's seed 0; batch-norm statistics {statistics})"
        assert f"The same network before training {weights}" in out
    assert "The paper: average r above 0.85" in out
    assert "\x1b" not in out + err
    names = {p.name for p in (tmp_path / "out").iterdir()}
    drawn = {
        f"{figure}.{kind}"
        for figure in (
            *("fig2-matrices", "fig2c-distribution", "fig2ab-scatter", "fig2d-parts", "fig2e-distance"),
            "stripes",
        )
        for kind in ("png", "pdf")
    }
    arrays = {f"{copy}stage{stage}.nc" for copy in ("", "untrained-", "reestimated-") for stage in (1, 2, 3)}
    assert names == drawn | arrays | {"correlation.json", "images.txt", "manifest.json"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["checkpoint_sha256"] == Checkpoint.read(SE).sha256
    assert set(manifest["files"]) == names - {"manifest.json"}
    assert manifest["versions"]["torch"] == torch.__version__


@pytest.mark.usefixtures("_undrawn")
def test_correlation_json_is_one_document_equal_to_a_plain_loop(tmp_path, capsys):
    assert analyze("correlation", "--ckpt", SE, "--images", 20, "--json", "--out", tmp_path / "out") == 0
    document = json.loads(capsys.readouterr().out)
    checkpoint, source = Checkpoint.read(SE), open_data("digits", "test")
    assert (document["schema"], document["checkpoint"], document["data"], document["images"]) == (
        "dia.correlation/2",
        SE,
        "digits",
        20,
    )
    model = checkpoint.build()
    pixels = source.pixels[evenly_spaced(20, 360)]
    with capture(model) as records, torch.no_grad():
        model(checkpoint.info.preprocessing(pixels))
    maps = [value.double().numpy() for value in records.values()]
    for number, stage in enumerate(document["stages"]):
        layers = maps[6 * number : 6 * number + 6]
        r = [np.corrcoef([layer[image] for layer in layers]) for image in range(20)]
        above = np.array([one[np.triu_indices(6, 1)] for one in r])
        np.testing.assert_allclose(stage["matrix"], np.mean(r, 0), atol=1e-6)
        assert stage["mean_r"] == pytest.approx(above.mean(), abs=1e-6)
        assert stage["std_r"] == pytest.approx(above.std(), abs=1e-6)
        assert stage["median_r"] == pytest.approx(np.median(above), abs=3e-5)
        assert stage["share_above_0_8"] == pytest.approx((above > 0.8).mean(), abs=1e-6)
        assert (stage["layers"], stage["pairs"], stage["undefined"]) == (6, 20 * 15, 0)
    assert len(document["untrained"]["stages"]) == 3


def test_the_same_command_gives_the_same_numbers(small, tmp_path, capsys):
    for name in ("a", "b"):
        assert analyze("correlation", *small, "--json", "--out", tmp_path / name) == 0
    out = capsys.readouterr().out
    half = len(out) // 2
    assert out[:half] == out[half:]


@pytest.mark.usefixtures("_undrawn")
def test_a_shared_module_is_not_held_against_the_papers_claim(tmp_path, capsys):
    assert analyze("correlation", "--ckpt", LSTM, "--images", 8, "--out", tmp_path / "out") == 0
    assert "one module serves several layers" in capsys.readouterr().out


def test_points_can_be_named(small, tmp_path, capsys):
    options = ("--points", "*cell_state", "--json", "--out", tmp_path / "out")
    assert analyze("correlation", *small, *options) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["stages"][0]["points"][0] == {"module": "stages.0.attention.cells.0.cell_state", "call": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--ckpt", "digits-resnet56-es"),
            "--ckpt: unknown checkpoint 'digits-resnet56-es'; did you mean 'digits-resnet56-se'",
        ),
        (("--ckpt", SE, "--data", "digit"), "--data: unknown data 'digit'; did you mean 'digits'"),
        (("--ckpt", SE, "--device", "cud"), "--device: 'cud' is not available here; accepted: auto, cpu"),
        (("--ckpt", SE, "--points", "*.gat"), "--points: nothing matches '*.gat'"),
        (("--ckpt", SE, "--images", 361), "--images: 361 images asked for, digits has 360"),
        (("--ckpt", SE, "--data", "folder:/nonexistent"), "--data: /nonexistent is not a folder"),
        (("--ckpt", "/nonexistent.safetensors"), "--ckpt: there is no file /nonexistent.safetensors"),
    ],
)
def test_bad_input_is_one_line_that_names_the_option(options, message, tmp_path, capsys):
    assert message in failure(capsys, analyze("correlation", *options, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_network_without_attention_says_what_to_do(tmp_path, capsys):
    path = tmp_path / "plain.safetensors"
    plain_checkpoint(path)
    options = ("--data", f"folder:{images(tmp_path, 2)}", "--out", tmp_path / "out")
    message = failure(capsys, analyze("correlation", "--ckpt", path, *options))
    assert "ResidualNetwork uses no attention that can be captured; name modules" in message


def test_existing_results_are_refused_before_any_work_and_replaced_on_request(small, tmp_path, capsys):
    run = ("correlation", *small, "--out", tmp_path / "out")
    assert analyze(*run) == 0
    capsys.readouterr()
    assert "--out" in failure(capsys, analyze(*run))
    assert analyze(*run, "--overwrite") == 0


def test_a_stage_of_one_layer_is_said(tmp_path, capsys):
    path = tmp_path / "one.safetensors"
    plain_checkpoint(path, "cifar_resnet11_se")
    folder = images(tmp_path, 3)
    options = ("--data", f"folder:{folder}", "--out", tmp_path / "out")
    assert analyze("correlation", "--ckpt", path, *options) == 0
    out = capsys.readouterr().out
    assert "so there is no pair to correlate" in out
    assert "There is no defined correlation" in out


@pytest.mark.usefixtures("_undrawn")
def test_an_unreadable_image_is_named_and_skipped_or_an_error(tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    plain_checkpoint(path, "cifar_resnet20_se")
    folder = images(tmp_path, 3)
    (folder / "broken.png").write_bytes(b"no image")
    run = ("correlation", "--ckpt", path, "--data", f"folder:{folder}", "--json")
    assert analyze(*run, "--out", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["images"] == 3
    assert "1 of 4 images cannot be read and were skipped" in err
    assert "broken.png: not an image in a known format" in err
    assert "broken.png" in failure(capsys, analyze(*run, "--strict", "--out", tmp_path / "strict"))


def test_debug_shows_the_traceback(capsys, tmp_path):
    assert analyze("correlation", "--ckpt", "none", "--debug", "--out", tmp_path / "out") == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_ends_with_130(monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.common.inputs.open_networks", interrupt)
    assert analyze("correlation", "--ckpt", SE, "--out", tmp_path / "out") == 130


@pytest.mark.usefixtures("_undrawn")
def test_capture_writes_a_store_from_which_correlation_gives_the_same_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cli.analyses.correlation.draw", lambda *_: {})
    store = tmp_path / "maps.zarr"
    assert analyze("capture", "--ckpt", LSTM, "--images", 20, "--out", store, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["images"], document["data"]) == ("dia.capture/1", 20, "digits")
    assert analyze("correlation", "--ckpt", LSTM, "--images", 20, "--out", tmp_path / "net", "--json") == 0
    direct = json.loads(capsys.readouterr().out)
    assert analyze("correlation", "--capture", store, "--out", tmp_path / "stored", "--json") == 0
    stored = json.loads(capsys.readouterr().out)
    assert stored.pop("untrained") is None
    assert direct.pop("untrained")["stages"]
    assert stored.pop("untrained_reestimated") is None
    assert direct.pop("untrained_reestimated")["stages"]
    assert stored.pop("training") is None
    assert direct.pop("training")["images"] == 20
    assert stored == direct
    assert (tmp_path / "stored" / "images.txt").read_text() == (tmp_path / "net" / "images.txt").read_text()
    assert not list((tmp_path / "stored").glob("untrained-*"))
    assert analyze("correlation", "--capture", store, "--out", tmp_path / "text") == 0
    assert "A store holds nothing from before training" in capsys.readouterr().out


def test_correlation_takes_a_checkpoint_or_a_store(tmp_path, capsys):
    assert analyze("correlation", "--ckpt", SE, "--capture", tmp_path) == 2
    assert analyze("correlation", "--capture", tmp_path, "--images", 4) == 2
    assert "not with --capture: the store's images" in capsys.readouterr().err.replace("\n", " ")
    message = failure(capsys, analyze("correlation", "--capture", tmp_path, "--out", tmp_path / "out"))
    assert "error: --capture:" in message
    assert "is damaged or no capture store of dia-analyze: it has no zarr.json" in message
    assert not (tmp_path / "out").exists()


def test_capture_refuses_another_checkpoint_and_names_unreadable_images(tmp_path, capsys):
    path, folder = tmp_path / "net.safetensors", images(tmp_path, 3)
    plain_checkpoint(path, "cifar_resnet20_se")
    (folder / "broken.png").write_bytes(b"no image")
    run = ("capture", "--data", f"folder:{folder}", "-b", 1, "--out", tmp_path / "s.zarr")
    assert analyze(*run, "--ckpt", path) == 0
    out, err = capsys.readouterr()
    assert "3 images, float32" in out
    assert "1 of 4 images cannot be read and were skipped" in err
    assert "--out" in failure(capsys, analyze(*run, "--ckpt", path))
    plain_checkpoint(path, "cifar_resnet20_se")  # other random weights
    assert "--ckpt: " in failure(capsys, analyze(*run, "--ckpt", path, "--resume"))


def test_models_lists_names_and_exact_counts(capsys):
    assert train("models", "*resnet164*", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dia.models/1"
    counts = {m["name"]: m["parameters"] for m in document["models"]}
    assert counts["cifar_resnet164"] == 1_727_284
    assert counts["cifar_resnet164_dia_lstm"] == 1_946_132
    assert train("models", "*29_se") == 0
    assert "cifar_resnet29_se       369,928" in capsys.readouterr().out
    assert "PATTERN: no network is called '*resnet30*'" in failure(capsys, train("models", "*resnet30*"))


def test_fit_eval_and_resume_from_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    small = ("--set", "epochs=1", "--set", "batch_size=512", "--set", "augment=none")
    assert train("fit", "--model", "cifar_resnet11_eca", "--data", "digits", *small, "--out", run, "--json") == 0
    out, err = capsys.readouterr()
    fitted = json.loads(out)
    assert fitted["schema"] == "dia.fit/1"
    assert "epoch 1/1: loss" in err
    assert "\x1b" not in err
    assert train("eval", "--ckpt", run / "model.safetensors", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["data"], document["images"]) == ("dia.eval/1", "digits", 360)
    assert document["accuracy"] == pytest.approx(fitted["last"]["test_accuracy"])
    assert list(document["per_class_accuracy"]) == list("0123456789")
    assert train("fit", "--resume", "--out", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["last"] == fitted["last"]
    assert "not empty" in failure(capsys, train("fit", "--model", "cifar_resnet11", "--data", "digits", "--out", run))
    message = failure(capsys, train("fit", "--resume", "--out", run, "--model", "cifar_resnet20"))
    assert "was started with model cifar_resnet11_eca, not cifar_resnet20" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "digits"), "--model: say which model to train"),
        (("--model", "cifar_resnet11"), "--data: say which data to train with"),
        (
            ("--model", "cifar_resnet12", "--data", "digits"),
            "--model: cifar_resnet12: the depth must be 9n + 2",
        ),
        (
            ("--model", "cifar_resnet11", "--data", "digits", "--set", "epochs"),
            "--set: 'epochs' is not of the form key=value",
        ),
        (
            ("--model", "cifar_resnet11", "--data", "digits", "--set", "epoch=3"),
            "--set: unknown option 'epoch'",
        ),
        (
            ("--model", "cifar_resnet11", "--data", "digits", "--recipe", "best"),
            "--recipe: unknown recipe 'best'",
        ),
        (("--resume",), "--out: --resume needs the run's directory"),
        (
            ("--model", "cifar_resnet11", "--data", "digits", "--from", SE),
            "--from: digits-resnet56-se holds cifar_resnet56_se",
        ),
        (
            ("--model", "cifar_resnet11", "--data", "cifar10", "--data-dir", "/nonexistent"),
            "--data: cifar10 is not in /nonexistent",
        ),
    ],
)
def test_fit_refuses_what_it_cannot_do(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in failure(capsys, train("fit", *options))
    assert not list(tmp_path.iterdir())


def test_eval_refuses_classes_that_the_network_does_not_know(tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    plain_checkpoint(path)
    folder = tmp_path / "data"
    for name in ("yes", "maybe"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(folder / name / "a.png")
    message = failure(capsys, train("eval", "--ckpt", path, "--data", f"folder:{folder}"))
    assert "classes that the network does not know: maybe; it knows no, yes" in message
    (folder / "maybe").rename(folder / "no")
    assert train("eval", "--ckpt", path, "--data", f"folder:{folder}") == 0
    assert "on 2 images" in capsys.readouterr().out
