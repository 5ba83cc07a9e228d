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

    Checkpoints are named for their files, or for their paths where two files have one name; the files of runs are
    named for their folders. Raises ModelInputError if there is nothing to compare, and for options without a use.
    """
    checkpoints, models, changes = list(checkpoints), list(models), list(changes)
    if changes and not models:
        raise ModelInputError("set", "these are options of networks made by --model, and there is none")
    stems = Counter(Path(source).stem for source in checkpoints)
    named = [(Path(s).stem if stems[Path(s).stem] == 1 else s, s) for s in checkpoints]
    from_runs = [(file.resolve().parent.name, str(file)) for files in runs for file in files]
    options = tuple(parse_setting(change) for change in changes)
    made = [Candidate(model, model=model, options=options) for model in models]
    found = [*(Candidate(name, source=source) for name, source in [*named, *from_runs]), *made]
    if not found:
        raise ModelInputError("model", "say which networks to compare: --model NAME or --ckpt FILE, several times")
    return found


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
