"""Warnings that are given once, though thousands of images bring the same."""

import warnings
from threading import Lock

SAID: set[str] = set()
_LOCK = Lock()  # images are read by several threads


def warn_once(text: str, kind: str | None = None) -> None:
    """Warn, unless this process has already warned of the kind, by default of the same text.

    Python's own record of what was said is emptied whenever a library changes the filters for a moment.
    """
    with _LOCK:
        if (kind or text) in SAID:
            return
        SAID.add(kind or text)
    warnings.warn(text, stacklevel=3)
