"""docs/cli.md is what the commands say of themselves."""

import importlib.util
from pathlib import Path

from cli import analyze, train

DOCS = Path(__file__).parents[1] / "docs"


def writer():
    spec = importlib.util.spec_from_file_location("write_cli", DOCS / "write_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date():
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == writer().reference(), "run `python docs/write_cli.py`"


def test_every_command_and_option_is_in_it():
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    for app in (analyze.app, train.app):
        for command in app.registered_commands:
            name = command.name or command.callback.__name__
            assert f"### `{app.info.name} {name}" in page
    report = page.partition("### `dia-analyze report`")[2].partition("###")[0]
    for row in (
        "| `--ckpt` TEXT | A checkpoint file or the name of a bundled one; several times. |  |",
        "| `--seed` NUMBER | Random seed. | `0` |",
        "| `-b`, `--batch-size` NUMBER | Images at a time. | `32` |",
        "| `--overwrite` | Replace an existing page. |  |",
    ):
        assert row in report
    assert "| `--out` PATH | Folder for the images. | needed |" in page
    assert "| `--dtype` `float16` or `float32` |" in page
    assert "### `dia-analyze gradcam [IMAGES]...`" in page
