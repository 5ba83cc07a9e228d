"""Run a command and turn every outcome into an exit code: 0 ok, 1 error, 2 usage, 130 interrupted."""

import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from threading import Event
from typing import Any, NoReturn

import typer

from cli.common.pipe import NotPrintedError, Pipe
from dia_models.errors import one_line

DEBUG_OPTION = "--debug"
LONGEST_LINE = 300
INTERRUPTED = 130
_interrupt_came = Event()


class _InterruptedError(Exception):
    """An interrupt on its way through Typer, which would turn a KeyboardInterrupt into a bare exit code."""


def start(app: typer.Typer) -> NoReturn:
    """Run a Typer app on the command line's arguments and leave with its exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a shell has it ignored
        signal.signal(signal.SIGINT, interrupt)
    sys.exit(run(app, sys.argv[1:]))


def interrupt(number: int, frame: Any) -> NoReturn:
    """Raise KeyboardInterrupt, and note that: a library that is being imported may lose it, and fail in another way."""
    _interrupt_came.set()
    signal.default_int_handler(number, frame)


def run(app: typer.Typer, arguments: list[str]) -> int:
    """Run a Typer app. Errors are one line on stderr; with --debug anywhere in the arguments, a traceback as well."""
    with redirect_stdout(Pipe(sys.stdout)) as out, redirect_stderr(Pipe(sys.stderr)):
        try:
            return _run(app, [a for a in arguments if a != DEBUG_OPTION])
        except (KeyboardInterrupt, _InterruptedError, typer.Abort) as interrupt:
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
            if _interrupt_came.is_set():
                _tell("interrupted")
                return INTERRUPTED
            _tell(one_line(f"error: {_line(error, typer.main.get_command(app), arguments)}", LONGEST_LINE))
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


def _line(error: Exception, command: Any, arguments: Sequence[str]) -> str:
    """The error on one line, behind the option or argument that caused it."""
    argument = getattr(error, "argument", None)
    text = one_line(error, LONGEST_LINE)
    if isinstance(error, NotPrintedError):
        return text
    if argument is None:
        return f"unexpected {type(error).__name__}: {text} (run again with {DEBUG_OPTION} to see where)"
    option = _option(str(argument), command, arguments)
    return f"{option}: {text}" if option else text


def _option(argument: str, command: Any, arguments: Sequence[str]) -> str | None:
    """What the user calls an argument: the option of that name, --set, or the positional one; None if there is none.

    An argument in capitals is a positional one, also where an option has its name.
    """
    commands = getattr(command, "commands", {})
    chosen = next((commands[word] for word in arguments if word in commands), command)
    options = {option for parameter in chosen.params for option in parameter.opts}
    named = {str(p.metavar or p.name).strip("[].").upper() for p in chosen.params if p.param_type_name == "argument"}
    set_here = {word.removeprefix("--set=").partition("=")[0] for word in arguments if "=" in word}
    option = f"--{argument.lower().replace('_', '-')}"
    if option in options and not argument.isupper():
        return option
    if "--set" in options and argument in set_here:
        return "--set"
    return argument.upper() if argument.upper() in named else None
