"""The one error a user's input can cause."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

LONGEST = 280
LONGEST_NAME = 60
NEAREST = 3
NOUNS = {"set": "option", "ckpt": "checkpoint", "pattern": "model"}
COLOR_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class ModelInputError(ValueError):
    """A value the user gave cannot be used.

    `argument` names which value (`"model"`, `"data"`, ...), so that a command line can name its option.
    """

    def __init__(self, argument: str, message: str):
        super().__init__(message)
        self.argument = argument


def unknown(
    argument: str, given: str, accepted: Iterable[str], *, listed_by: str | None = None, also: str = ""
) -> ModelInputError:
    """The error for a name that is not among the accepted ones: the nearest of them, and all where they fit on a line.

    `listed_by` is the command that lists all; `also` is accepted besides, and is no name.
    """
    names = sorted(accepted)
    shown = given if len(given) <= LONGEST_NAME else f"{given[:LONGEST_NAME]}..."
    start = f"unknown {NOUNS.get(argument, argument)} {shown!r}; {did_you_mean(given, names)}"
    described = f" ({listed_by} lists them)" if listed_by else ""
    full = f"{start}accepted: {', '.join([*names, *filter(None, [also])])}{described}"
    if len(full) <= LONGEST:
        return ModelInputError(argument, full)
    listing = f"{listed_by} lists all {len(names)}" if listed_by else f"accepted are {len(names)} names"
    return ModelInputError(argument, f"{start}{listing}{f'; also accepted: {also}' if also else ''}")


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """`did you mean 'this' or 'that'? ` with the nearest of many names; empty if none is near.

    Initials are near: `lr` is `learning_rate`.
    """
    known = list(names)
    spelled_out = [name for name in known if given == "".join(word[:1] for word in name.split("_"))]
    nearest = spelled_out or get_close_matches(given, known, n=NEAREST)
    return f"did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""


def first_problem(error: "ValidationError", whole: str = "the file") -> tuple[str, Any, str]:
    """The first field that pydantic refuses: its place (`whole` if it is none), the value given, and the reason."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or whole
    return place, first["input"], first["msg"].removeprefix("Value error, ")


def one_line(message: object, longest: int = 300) -> str:
    """A message, or an error's name if it has none, as one line without control characters, cut if it is long."""
    text = COLOR_CODE.sub("", str(message)) or type(message).__name__
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def some(names: Iterable[str], shown: int = 3, longest: int = 60) -> str:
    """The first few of many names, as `a, b, c, …`."""
    given = list(names)
    return ", ".join([*(one_line(name, longest) for name in given[:shown]), *["…"][: len(given) > shown]])
