"""The names of a network's outputs."""

from collections.abc import Sequence
from pathlib import Path

from dia_models.errors import ModelInputError, some
from dia_models.networks.preprocessing import ASSUMED
from dia_models.networks.request import Record
from dia_models.words import quantity

LARGEST_BYTES = 64 * 2**20
Classes = Sequence[str] | str | Path


def name_classes(
    given: Classes | None, record: Record, outputs: int | None, of_data: Sequence[str] = ()
) -> tuple[tuple[str, ...] | None, str]:
    """The names, None if they are not known, and where they come from.

    Where nothing says them and the data has as many classes, these are assumed, in alphabetical order.
    Raises ModelInputError for other names than the network has outputs; one output may have one name, or two.
    """
    if given is None:
        known = record.classes
        if known and len(known) == outputs:
            return known, record.origin
        if outputs is not None and len(of_data) == max(outputs, 2):
            return tuple(sorted(of_data)), f"{ASSUMED}: those of the data in alphabetical order"
        return None, "not known"
    names = read_class_names(given) if isinstance(given, str | Path) else tuple(map(str, given))
    accepted = (1, 2) if outputs == 1 else (outputs,)
    if outputs is not None and len(names) not in accepted:
        raise ModelInputError(
            "classes",
            f"{quantity(len(names), 'name')} given for {quantity(outputs, 'output')}; give one each, in order",
        )
    if twice := {name for name in names if names.count(name) > 1}:
        raise ModelInputError("classes", f"names given twice: {some(sorted(twice))}")
    return names, "as given"


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The names in a file, one a line, empty lines left out. Raises ModelInputError if it cannot be read."""
    path = Path(path).expanduser()
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ModelInputError("classes", f"{path} has more than 64 MiB; give a text file with one name a line")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        text = f"{path} cannot be read ({error}); give a text file with one name a line, in the order of the outputs"
        raise ModelInputError("classes", text) from error
    return tuple(name for line in lines if (name := line.strip()))
