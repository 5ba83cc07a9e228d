"""What --help shows: examples that can be typed, and flags without a kind of value."""

import json
import re
import shlex

import pytest
import typer

import cli.analyze
import cli.train
from cli.runs.models import print_bundled
from dia_models import Checkpoint, list_checkpoints
from tests.support.commands import analyze, failure, train

PROGRAMS = {"dia-analyze": cli.analyze.app, "dia-train": cli.train.app}
COMMANDS = [(program, name) for program, app in PROGRAMS.items() for name in typer.main.get_command(app).commands]


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_every_command_has_examples_with_options_that_it_takes(program, name):
    command = typer.main.get_command(PROGRAMS[program]).commands[name]
    head, *lines = command.epilog.splitlines()
    assert head == ("Example:" if len(lines) == 1 else "Examples:")
    assert 1 <= len(lines) <= 2
    for line in lines:
        assert len(line.strip()) <= 78  # a line of a terminal
        called, chosen, *given = shlex.split(line)
        assert (called, chosen) == (program, name)
        context = command.context_class(command, info_name=name)
        command.make_parser(context).parse_args(given)  # an error for an option that it does not take


@pytest.mark.parametrize("run", [analyze, train])
def test_flags_are_shown_without_a_kind_of_value(run, capsys):
    for arguments in (["--help"], ["report" if run is analyze else "fit", "--help"]):
        assert run(*arguments) == 0
        text = capsys.readouterr().out
        assert "--help" in text
        assert not re.search("<bool>|BOOLEAN", text)
    assert "Example" in text
    assert re.search("<int|INTEGER", text)  # other options keep theirs, which older versions of typer write in capitals


def test_the_attention_modules_are_one_json_document_too(capsys):
    assert train("models", "--attention", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    modules = {module["name"]: module for module in document["modules"]}
    assert document["schema"] == "dia.attention-modules/1"
    assert (modules["se"]["parameters"], modules["se"]["options"]["reduction"]) == (2 * 256**2 // 16 + 256 + 16, 16)


def test_the_bundled_checkpoints_are_listed_with_data_and_accuracy(capsys):
    print_bundled(as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dia.checkpoints/1"
    assert [each["name"] for each in document["checkpoints"]] == list_checkpoints()
    print_bundled(as_json=False)
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[2:]}
    for name, (network, data, accuracy, seed) in rows.items():
        info = Checkpoint.read(name).info
        assert (network, data, seed) == (info.model.name, info.data, str(info.seed))
        assert accuracy == f"{100 * info.metrics['test_accuracy']:.2f}%"
    assert list(rows) == list_checkpoints()


@pytest.mark.parametrize("name", ["nothing", "digits-resnet56-es", "x" * 200])
def test_an_unknown_checkpoint_says_which_command_lists_them(name, tmp_path, capsys):
    message = failure(capsys, analyze("correlation", "--ckpt", name, "--out", tmp_path / "out"))
    assert "dia-train models --bundled lists" in message
    assert len(message) <= 300
