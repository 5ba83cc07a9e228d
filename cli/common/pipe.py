"""Output that a reader may close early, as `head` does, and that may go to a full disk."""

import os
from contextlib import suppress
from typing import Any, TextIO


class NotPrintedError(Exception):
    """The output cannot be written."""


class Pipe:
    """A text stream that is silent from when its reader has closed it: the work goes on, to be written to files."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text. Raises NotPrintedError if that fails for another reason than a closed pipe."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Write what is held back. Raises NotPrintedError as `write` does."""
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, action: Any, *given: str) -> None:
        try:
            action(*given)
        except OSError as error:
            with suppress(OSError, ValueError):  # so that Python's own flush, when it ends, does not fail once more
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                raise NotPrintedError(f"the output could not be printed: {error.strerror or error}") from error
