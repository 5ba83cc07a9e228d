"""Run a command and turn every outcome into an exit code: 0 ok, 1 error, 2 usage, 130 interrupted."""

import sys
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any, NoReturn

import typer

from cli.pipe import NotPrintedError, Pipe

DEBUG_OPTION = "--debug"
INTERRUPTED = 130


class _InterruptedError(Exception):
    """An interrupt on its way through Typer, which would turn a KeyboardInterrupt into a bare exit code."""


def start(app: typer.Typer) -> NoReturn:
    """Run a Typer app on the command line's arguments and leave with its exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    sys.exit(run(app, sys.argv[1:]))


def run(app: typer.Typer, arguments: list[str]) -> int:
    """Run a Typer app. Errors are one line on stderr; with --debug anywhere in the arguments, a traceback as well."""
    with redirect_stdout(Pipe(sys.stdout)) as out, redirect_stderr(Pipe(sys.stderr)):
        try:
            return _run(app, [a for a in arguments if a != DEBUG_OPTION])
        except (_InterruptedError, typer.Abort) as interrupt:
            _tell(f"interrupted; {str(interrupt) or 'nothing was written'}")
            return INTERRUPTED
        except Exception as error:
            show = getattr(error, "show", None)
            if show is not None:  # a usage error of the parser, which Typer takes from click or brings itself
                show()
                return 2
            with suppress(NotPrintedError):
                out.flush()  # what was found stands before the error
            if DEBUG_OPTION in arguments:
                traceback.print_exc()
            _tell(f"error: {_line(error)}")
            return 1


def _run(app: typer.Typer, arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    invoke = command.invoke

    def invoke_and_tell(context: Any) -> Any:
        try:
            return invoke(context)
        except KeyboardInterrupt as interrupt:
            raise _InterruptedError(*interrupt.args) from interrupt

    command.invoke = invoke_and_tell  # type: ignore[assignment, method-assign]
    result = command.main(arguments, standalone_mode=False)
    sys.stdout.flush()
    if result == INTERRUPTED:  # before the command began
        raise _InterruptedError
    return result if isinstance(result, int) else 0


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")


def _line(error: Exception) -> str:
    argument = getattr(error, "argument", None)
    text = " ".join(str(error).split())
    if argument is not None:
        return f"--{argument}: {text}"
    if isinstance(error, NotPrintedError):
        return text
    return f"unexpected {type(error).__name__}: {text} (run again with {DEBUG_OPTION} to see where)"
