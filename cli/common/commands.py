"""Commands: groups of options as one parameter, examples below the options, flags without a kind of value."""

import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

Function = Callable[..., None]
EMPTY = inspect.Parameter.empty


def program(name: str, about: str) -> typer.Typer:
    """A program without commands, which are added by `command`."""
    return typer.Typer(cls=Group, name=name, help=about, no_args_is_help=True, pretty_exceptions_enable=False)


def command(app: typer.Typer, *examples: str, name: str | None = None) -> Callable[[Function], Function]:
    """Make a function a command; `examples` are command lines without the program's name."""
    head = f"Example{'' if len(examples) == 1 else 's'}:"
    epilog = "\n".join([head, *(f"  {app.info.name} {example}" for example in examples)])

    def register(function: Function) -> Function:
        return app.command(name, cls=Command, epilog=epilog)(collected(function))

    return register


def collected(function: Function) -> Function:
    """The function with each parameter that is a group (a dataclass of options) replaced by the group's options.

    The parameter's default is a group, whose values are the options' defaults. A field that is no option keeps its own.
    """
    hints = get_type_hints(function, include_extras=True)
    given = inspect.signature(function).parameters
    options = {n: list(_options(kind, given[n].default)) for n, kind in hints.items() if is_dataclass(kind)}

    @wraps(function)
    def call(**values: Any) -> None:
        for name, group in options.items():
            values[name] = hints[name](**{option.name: values.pop(option.name) for option in group})
        function(**values)

    parameters = [p for n, own in given.items() for p in options.get(n) or [_parameter(n, hints[n], own.default)]]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def _options(kind: Any, default: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    defaults = kind if default is EMPTY else default
    for field in fields(kind):
        if get_origin(hints[field.name]) is Annotated:
            yield _parameter(field.name, hints[field.name], getattr(defaults, field.name, EMPTY))


def _parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    """A parameter by keyword; an option without a name has the parameter's."""
    kind, info = get_args(hint)
    if isinstance(info, OptionInfo) and not info.param_decls:
        info = copy(info)
        info.param_decls = (f"--{name.replace('_', '-')}",)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


class _PlainFlags:
    """Commands whose flags are shown as they are typed, without a kind of value."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, `--help` among them."""
        parameters = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.display_type_rich = lambda ctx: None
        return parameters


class Command(_PlainFlags, TyperCommand):
    """A command."""


class Group(_PlainFlags, TyperGroup):
    """The commands of a program."""
