"""Names that tell checkpoints apart, and names of files made from them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dia_models import Checkpoint

RUN_FILES = ("model", "best", "last")  # what a run's folder calls its checkpoints; the folder says which it is


def distinct(checkpoints: list[Checkpoint], ckpts: Sequence[str]) -> list[Checkpoint]:
    """The checkpoints under names that tell them apart: a run's model.safetensors is named for its folder."""
    plain = [
        Path(ckpt).absolute().parent.name if checkpoint.name in RUN_FILES else checkpoint.name
        for checkpoint, ckpt in zip(checkpoints, ckpts, strict=True)
    ]
    longer = [
        f"{Path(ckpt).absolute().parent.name}/{checkpoint.name}" if Path(ckpt).is_file() else checkpoint.name
        for checkpoint, ckpt in zip(checkpoints, ckpts, strict=True)
    ]
    names = plain if len(set(plain)) == len(plain) else longer
    seen: Counter[str] = Counter()
    distinct = []
    for checkpoint, name in zip(checkpoints, names, strict=True):
        seen[name] += 1
        distinct.append(replace(checkpoint, name=name if seen[name] == 1 else f"{name} ({seen[name]})"))
    return distinct


def file_name(text: str) -> str:
    """The text without what a file name should not have."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "image"


def network_name(checkpoint: Checkpoint) -> str:
    """The network's name and options: the same for training runs that differ in their seed only."""
    spec = checkpoint.info.model
    changed = ", ".join(f"{key}={value}" for key, value in sorted(spec.options.items()))
    return f"{spec.name} ({changed})" if changed else spec.name
