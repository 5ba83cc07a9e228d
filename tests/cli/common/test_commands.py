"""Groups of options: what a command shows is their fields, and what its function is given is the group."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from cli.common.commands import command, program
from cli.common.main import run
from cli.common.options import AllImages, DataOptions
from dia_models import ModelInputError
from dia_models.settings import parse_settings


@dataclass(frozen=True)
class Size:
    """Two options, and a field that is none."""

    width: Annotated[int, typer.Option("--width")]
    height: Annotated[int, typer.Option("--height")] = 2
    depth: int = 9


def called(*arguments, default=None):
    """What the command's function is given."""
    app, given = program("try", "Try."), []
    app.callback()(lambda: None)
    if default is None:

        @command(app, "show --width 1")
        def show(name: Annotated[str, typer.Argument()] = "x", *, size: Size, data: DataOptions) -> None:
            """Show."""
            given.append((name, size, data))
    else:

        @command(app, "show", name="show")
        def other(size: Size = default) -> None:
            """Show."""
            given.append(size)

    return run(app, ["show", *arguments]), given


def test_the_function_is_given_the_groups():
    assert called("--width", "1") == (0, [("x", Size(1, 2, 9), DataOptions())])
    code, [(name, size, data)] = called("a", "--height", "3", "--width", "1", "--data", "digits", "-b", "4")
    assert (code, name, size) == (0, "a", Size(1, 3, 9))
    assert (data.data, data.batch_size, data.images, data.device) == ("digits", 4, None, "auto")


def test_a_field_without_default_is_needed_and_one_that_is_no_option_is_not_taken(capsys):
    assert called()[0] == 2
    assert "--width" in capsys.readouterr().err
    assert called("--width", "1", "--depth", "3")[0] == 2
    assert "--depth" in capsys.readouterr().err


def test_a_default_group_gives_the_options_defaults():
    assert called(default=Size(5, 6)) == (0, [Size(5, 6, 9)])
    assert called("--height", "1", default=Size(5, 6)) == (0, [Size(5, 1, 9)])


def test_commands_that_take_all_images_have_no_option_for_how_many(capsys):
    app = program("try", "Try.")
    app.callback()(lambda: None)
    command(app, "show", name="show")(lambda: None)

    @command(app, "all", name="all")
    def everything(*, data: AllImages) -> None:
        """All."""
        assert data == AllImages(data="digits")
        assert (data.images, data.seed, data.batch_size) == (None, 0, 256)

    assert run(app, ["all", "--data", "digits"]) == 0
    assert run(app, ["all", "--images", "3"]) == 2
    assert "--images" in capsys.readouterr().err


def test_settings_are_toml_or_text():
    assert parse_settings(["epochs=3", "clip=0.5", "skip=false", "milestones=[1, 2]", "name=a=b"]) == {
        "epochs": 3,
        "clip": 0.5,
        "skip": False,
        "milestones": [1, 2],
        "name": "a=b",
    }
    assert parse_settings(None) == {}
    for wrong in ("epochs", "=3", "epochs="):
        with pytest.raises(ModelInputError, match="is not of the form key=value"):
            parse_settings([wrong])
