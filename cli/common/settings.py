"""--set key=value."""

import tomllib
from typing import Any

from dia_models import ModelInputError


def parse_setting(change: str) -> tuple[str, Any]:
    """key=value, the value as TOML if it is such, else as text. Raises ModelInputError for anything else."""
    key, equals, value = change.partition("=")
    if not (key and equals and value):
        raise ModelInputError("set", f"{change!r} is not of the form key=value")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
