"""Write docs/cli.md, the reference of all commands, from the commands themselves: `python docs/write_cli.py`."""

from collections.abc import Iterator
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from cli import analyze, train

PAGE = Path(__file__).parent / "cli.md"
HEAD = """# All commands and their options

Written by `python docs/write_cli.py` from the commands themselves; `COMMAND --help` says the same. `--debug` with any
command shows the traceback of an error. What the results mean is on the other pages.
"""
TYPES = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}


def reference() -> str:
    """The page."""
    return "\n".join([HEAD, *(line for app in (analyze.app, train.app) for line in _program(app))])


def _program(app: typer.Typer) -> Iterator[str]:
    yield f"## {app.info.name}\n\n{_cell(app.info.help)}\n"
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        yield from _command(f"{app.info.name} {name}", command.callback, command.epilog or "")


def _command(name: str, function: Any, examples: str) -> Iterator[str]:
    parameters = [(parameter, *_declared(parameter)) for parameter in signature(function).parameters.values()]
    arguments = [_shape(p, info) for p, _, info in parameters if isinstance(info, typer.models.ArgumentInfo)]
    yield f"### `{' '.join([name, *arguments])}`\n\n{_cell(function.__doc__)}\n"
    if parameters:
        yield "| option | | default |\n|---|---|---|"
        yield from (_row(*each) for each in parameters)
        yield ""
    if examples:
        lines = [line.strip() for line in examples.splitlines()[1:]]
        yield "\n".join(["For example", "", *(f"    {line}" for line in lines), ""])


def _declared(parameter: Parameter) -> tuple[Any, Any]:
    """A parameter's type, and what Typer is told of it."""
    assert get_origin(parameter.annotation) is Annotated, parameter
    kind, info = get_args(parameter.annotation)
    return kind, info


def _row(parameter: Parameter, kind: Any, info: Any) -> str:
    return f"| {_names(parameter, kind, info)} | {_cell(info.help)} | {_default(parameter)} |"


def _names(parameter: Parameter, kind: Any, info: Any) -> str:
    if isinstance(info, typer.models.ArgumentInfo):
        return f"`{_shape(parameter, info)}`"
    given = [name for name in (info.default, *(info.param_decls or ())) if isinstance(name, str)]  # as Typer reads it
    names = given or [f"--{parameter.name.replace('_', '-')}"]
    return " ".join([", ".join(f"`{name}`" for name in names), *_values(kind)])


def _shape(parameter: Parameter, info: Any) -> str:
    return str(info.metavar or parameter.name.upper())


def _values(kind: Any) -> list[str]:
    """What an option takes: nothing, one of some words, or a kind of value."""
    if get_origin(kind) is Literal:
        return [" or ".join(f"`{choice}`" for choice in get_args(kind))]
    inner = [part for part in get_args(kind) if part is not NoneType]
    if inner:
        return _values(inner[0])
    return [] if kind is bool else [TYPES[kind]]


def _default(parameter: Parameter) -> str:
    if parameter.default is Parameter.empty:
        return "needed"
    return "" if parameter.default is None or parameter.default is False else f"`{parameter.default}`"


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
