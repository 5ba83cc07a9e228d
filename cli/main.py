"""Run a command and turn every outcome into an exit code: 0 ok, 1 error, 2 usage, 130 interrupted."""

import os
import sys
import traceback
import warnings
from typing import NoReturn

import typer

DEBUG_OPTION = "--debug"


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
        print(f"error: {_line(error)}", file=sys.stderr)  # noqa: T201
        return 1


def _line(error: Exception) -> str:
    argument = getattr(error, "argument", None)
    text = " ".join(str(error).split())
    if argument is None:
        return f"unexpected {type(error).__name__}: {text} (run again with {DEBUG_OPTION} to see where)"
    return f"--{argument}: {text}"
