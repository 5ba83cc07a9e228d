"""Run a command and turn every outcome into an exit code: 0 ok, 1 error, 2 usage, 130 interrupted."""

import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import typer

DEBUG_OPTION = "--debug"
LONGEST_LINE = 300
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours in an error that a library wrote for a terminal


def start(app: typer.Typer) -> NoReturn:
    """Run a Typer app on the command line's arguments and leave with its exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    sys.exit(run(app, sys.argv[1:]))


def run(app: typer.Typer, arguments: list[str]) -> int:
    """Run a Typer app. Errors are one line on stderr; with --debug anywhere in the arguments, a traceback as well."""
    debug = DEBUG_OPTION in arguments
    command = typer.main.get_command(app)
    try:
        result = command.main([a for a in arguments if a != DEBUG_OPTION], standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        show = getattr(error, "show", None)
        if show is not None:  # a usage error of the parser, which Typer takes from click or brings itself
            show()
            return 2
        if debug:
            traceback.print_exc()
        print(_clipped(f"error: {_line(error, command, arguments)}"), file=sys.stderr)  # noqa: T201
        return 1


def _line(error: Exception, command: Any, arguments: Sequence[str]) -> str:
    """The error on one line, behind the option or argument that caused it."""
    argument = getattr(error, "argument", None)
    text = " ".join(ANSI.sub("", str(error)).split())
    if argument is None:
        return f"unexpected {type(error).__name__}: {text} (run again with {DEBUG_OPTION} to see where)"
    option = _option(str(argument), command, arguments)
    return f"{option}: {text}" if option else text


def _clipped(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 4].rstrip()} ..."


def _option(argument: str, command: Any, arguments: Sequence[str]) -> str | None:
    """What the user calls an argument: the option of that name, or the positional one; None if there is neither."""
    commands = getattr(command, "commands", {})
    chosen = next((commands[word] for word in arguments if word in commands), command)
    name = argument.lower().replace("_", "-")
    for parameter in chosen.params:
        if f"--{name}" in parameter.opts:
            return f"--{name}"
        shown = str(parameter.metavar or parameter.name).strip("[].")
        if parameter.param_type_name == "argument" and shown.lower() == name:
            return shown.upper()
    return None
