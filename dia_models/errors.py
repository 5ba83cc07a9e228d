"""The one error a user's input can cause."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

COLOUR_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class ModelInputError(ValueError):
    """A value the user gave cannot be used.

    `argument` names which value (`"model"`, `"data"`, ...), so that a command line can name its option.
    """

    def __init__(self, argument: str, message: str):
        super().__init__(message)
        self.argument = argument


def unknown(argument: str, given: str, accepted: Iterable[str]) -> ModelInputError:
    """The error for a name that is not among the accepted ones: it shows the nearest, then all of them."""
    names = sorted(accepted)
    nearest = get_close_matches(given, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return ModelInputError(argument, f"unknown {argument} {given!r}{hint} Accepted: {', '.join(names)}")


def one_line(message: object, longest: int = 300) -> str:
    """A message, or an error's name if it has none, as one line without control characters, cut if it is long."""
    text = COLOUR_CODE.sub("", str(message)) or type(message).__name__
    text = "".join(c if c.isprintable() else " " for c in text)
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def some(names: Iterable[str], shown: int = 3, longest: int = 60) -> str:
    """The first few of many names, as `a, b, c, …`."""
    given = list(names)
    return ", ".join([*(one_line(name, longest) for name in given[:shown]), *["…"][: len(given) > shown]])
