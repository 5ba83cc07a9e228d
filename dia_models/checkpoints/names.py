"""Names that tell checkpoints apart."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.checkpoints.files import SUFFIX

RUN_FILES = ("model", "best", "last")  # what a run's folder calls its checkpoints; the folder says which it is


def read_named(ckpts: Sequence[str]) -> list[Checkpoint]:
    """Read checkpoints, under names that tell them apart. Raises ModelInputError as `Checkpoint.read`."""
    return [replace(Checkpoint.read(ckpt), name=name) for ckpt, name in zip(ckpts, distinct_names(ckpts), strict=True)]


def distinct_names(ckpts: Sequence[str]) -> list[str]:
    """Names that tell checkpoints apart, by path or bundled name: the file's, of a run's checkpoint its folder's.

    Where two would have one name, all get as much more of their paths as it takes; one that is given twice a number.
    """
    if not ckpts:
        return []
    levels = list(zip(*map(_possible, ckpts), strict=True))
    return numbered_again(next(names for names in levels if len(set(names)) == len(set(levels[-1]))))


def numbered_again(names: Iterable[str]) -> list[str]:
    """The names, with a number behind each that came before."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct


def _possible(ckpt: str) -> tuple[str, ...]:
    """The names of a checkpoint, from the shortest to the longest."""
    path = Path(ckpt).expanduser()
    if path.suffix != SUFFIX and len(path.parts) == 1 and not path.is_file():
        return (ckpt,) * 5
    folder, stem = path.absolute().parent, path.name.removesuffix(SUFFIX)
    short, middle = f"{folder.name}/{stem}", f"{folder.parent.name}/{folder.name}"
    first, third = (folder.name, middle) if stem in RUN_FILES else (stem, f"{middle}/{stem}")
    return first, short, third, f"{middle}/{stem}", str(folder / stem)
