"""Networks as people type them: [NAME=]MODEL, and values that are for one of them, [NAME:]VALUE."""

from collections.abc import Container
from pathlib import Path

from dia_models.files import require_existing


def split_name(given: str) -> tuple[str | None, str]:
    """The name that a network is given, None if it is none, and the network."""
    name, equals, model = given.partition("=")
    return (name, model) if equals and name and not {"/", ":"} & set(name) else (None, given)


def split_value(text: str, names: Container[str | None]) -> tuple[str | None, str]:
    """Which of the names a value is for, None for all, and the value."""
    name, colon, value = text.partition(":")
    return (name, value) if colon and name in names else (None, text)


def require_network(given: str, argument: str) -> None:
    """Raise ModelInputError unless there is such a network of ours, or the file of one's own."""
    model = split_name(given)[1]
    module, colon, _ = model.rpartition(":")
    if module.endswith(".py"):
        require_existing(Path(module), argument)
    elif not colon:
        from dia_models.networks.sources import find_source  # takes seconds

        find_source(model)


def require_weights(given: str, argument: str) -> None:
    """Raise ModelInputError unless there is such a file."""
    behind = given.partition(":")[2]
    require_existing(Path(behind if behind and not Path(given).expanduser().exists() else given), argument)
