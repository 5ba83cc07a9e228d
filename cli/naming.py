"""Names that tell checkpoints apart, and names of files made from them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dia_analysis.findings import Attention
from dia_models import Checkpoint
from dia_models.models import blueprint

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


def attention_of(checkpoint: Checkpoint) -> Attention:
    """What attention a network has, in the words of the paper's claims."""
    kind = blueprint(checkpoint.info.model).plan.kind
    if kind is None:
        return "none"
    if kind.name.startswith("dia_lstm"):
        return "DIA-LSTM (Light)" if kind.name == "dia_lstm_light" else "DIA-LSTM"
    return "shared" if kind.shared else "one module per layer"
