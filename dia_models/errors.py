"""The one error a user's input can cause."""

from collections.abc import Iterable
from difflib import get_close_matches


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
