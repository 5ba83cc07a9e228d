"""Names that tell networks apart, and names of files and folders made from them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dia_analysis.results.output import file_name
from dia_models import Checkpoint, OpenedNetwork
from dia_models.checkpoints.files import SUFFIX

RUN_FILES = ("model", "best", "last")  # what a run's folder calls its checkpoints; the folder says which it is


def read_named(ckpts: Sequence[str]) -> list[Checkpoint]:
    """Read checkpoints, under names that tell them apart."""
    return [replace(Checkpoint.read(ckpt), name=name) for ckpt, name in zip(ckpts, names(ckpts), strict=True)]


def names(ckpts: Sequence[str]) -> list[str]:
    """Names that tell checkpoints apart, by path or bundled name: the file's, of a run's checkpoint its folder's.

    Where two would have one name, all get as much more of their paths as it takes.
    """
    if not ckpts:
        return []
    levels = list(zip(*map(_possible, ckpts), strict=True))
    return distinct(next(names for names in levels if len(set(names)) == len(set(levels[-1]))))


def distinct(given: Iterable[str]) -> list[str]:
    """The names, with a number behind those that came before: one network may be given twice."""
    seen: Counter[str] = Counter()
    found = []
    for name in given:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def _possible(ckpt: str) -> tuple[str, ...]:
    """The names of a checkpoint, from the shortest to the longest."""
    path = Path(ckpt).expanduser()
    if path.suffix != SUFFIX and len(path.parts) == 1 and not path.is_file():
        return (ckpt,) * 5
    folder, stem = path.absolute().parent, path.name.removesuffix(SUFFIX)
    short, middle = f"{folder.name}/{stem}", f"{folder.parent.name}/{folder.name}"
    first, third = (folder.name, middle) if stem in RUN_FILES else (stem, f"{middle}/{stem}")
    return first, short, third, f"{middle}/{stem}", str(folder / stem)


def default_name(command: str, networks: Sequence[str], data: str | None) -> str:
    """The name of the folder or file that a command writes by default: command, networks, data."""
    data_name = None if data is None else Path(data.partition(":")[2] or data).name
    parts = [command, "-".join(map(file_name, networks)), data_name or ""]
    return "-".join(file_name(part) for part in parts if part)


def network_name(network: OpenedNetwork) -> str:
    """The network's name and options: the same for training runs that differ in their seed only."""
    if (spec := network.spec) is None:
        return network.name
    changed = ", ".join(f"{key}={value}" for key, value in sorted(spec.options.items()))
    return f"{spec.name} ({changed})" if changed else spec.name
