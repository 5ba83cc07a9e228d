"""The networks that a command compares: checkpoints, the kept epochs of runs, and fresh ones by name."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cli.settings import parse_setting
from dia_models import Checkpoint, ModelInputError, create_model
from dia_models.network import Network


@dataclass(frozen=True)
class Candidate:
    """A network to compare: the checkpoint at `source`, or one with random weights made from `model`."""

    name: str
    source: str | None = None
    model: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def read(self) -> Checkpoint | None:
        """Read the checkpoint, if it is one."""
        return None if self.source is None else Checkpoint.read(self.source)

    def fresh(self, classes: int, channels: int, seed: int) -> Network:
        """Make the network with random weights from `seed`; the random numbers that follow stay as they were."""
        assert self.model is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return create_model(self.model, num_classes=classes, in_channels=channels, **dict(self.options))


def candidates(
    checkpoints: Iterable[str], models: Iterable[str], changes: Iterable[str], runs: Iterable[list[Path]] = ()
) -> list[Candidate]:
    """Checkpoints, then networks of runs (a list of files each), then fresh ones that share the options `changes`.

    Checkpoints are named for their files and runs for their folders, or for the whole paths where two would have one
    name. Raises ModelInputError if there is nothing to compare, and for options without a use.
    """
    checkpoints, models, changes = list(checkpoints), list(models), list(changes)
    if changes and not models:
        raise ModelInputError("set", "these are options of networks made by --model, and there is none")
    files_of_runs = list(runs)
    folders = [str(files[0].resolve().parent) for files in files_of_runs]
    saved = [Candidate(name, str(source)) for name, source in zip(_short(checkpoints), checkpoints, strict=True)]
    for name, files in zip(_short(folders), files_of_runs, strict=True):
        saved += [Candidate(name, str(file)) for file in files]
    options = tuple(parse_setting(change) for change in changes)
    found = [*saved, *(Candidate(model, model=model, options=options) for model in models)]
    if not found:
        raise ModelInputError("model", "say which networks to compare: --model NAME or --ckpt FILE, several times")
    return found


def _short(paths: list[str]) -> list[str]:
    stems = Counter(Path(path).stem for path in paths)
    return [Path(path).stem if stems[Path(path).stem] == 1 else path for path in paths]


def in_even_batches(count: int, at_most: int) -> int:
    """A batch size of at most `at_most` that leaves no small rest: 360 images in batches of 120, not 128, 128, 104."""
    return -(-count // -(-count // at_most))


def run_files(runs: list[Path], every_epoch: bool) -> list[list[Path]]:
    """The checkpoints of training runs: of the last epoch, or of every epoch that was kept."""
    if every_epoch and not runs:
        raise ModelInputError("every-epoch", "say of which run: --run DIR")
    if not runs:
        return []
    from dia_models.run import MODEL, kept_epochs  # takes seconds

    return [kept_epochs(run) if every_epoch else [run / MODEL] for run in runs]
