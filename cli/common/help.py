"""What `--help` shows: examples below the options, and flags without the kind of value that they do not take."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


def examples(*commands: str) -> str:
    """The text below a command's options: command lines that can be typed as they are."""
    return "\n".join([f"Example{'' if len(commands) == 1 else 's'}:", *(f"  {command}" for command in commands)])


class Command(TyperCommand):
    """A command whose flags are shown as they are typed."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, `--help` among them."""
        return _plain_flags(super().get_params(ctx))


class Group(TyperGroup):
    """The commands of a program, whose own flags are shown as they are typed."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, `--help` among them."""
        return _plain_flags(super().get_params(ctx))


def _plain_flags(parameters: Any) -> Any:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.display_type_rich = _no_type
    return parameters


def _no_type(ctx: Any) -> None:
    """No kind of value."""
