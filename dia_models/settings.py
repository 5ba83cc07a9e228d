"""Options of networks and fields of recipes as people type them: key=value."""

import tomllib
from collections.abc import Iterable
from typing import Any

from dia_models.errors import ModelInputError


def parse_settings(changes: Iterable[str] | None) -> dict[str, Any]:
    """Read texts of the form key=value, each value as TOML if it is such, else as text. Raises ModelInputError."""
    return dict(map(_setting, changes or ()))


def _setting(change: str) -> tuple[str, Any]:
    key, equals, value = change.partition("=")
    if not (key and equals and value):
        raise ModelInputError("set", f"{change!r} is not of the form key=value")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
