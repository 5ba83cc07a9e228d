"""The networks that a command compares: checkpoints, the kept epochs of runs, and fresh ones by name."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cli.common.naming import names
from cli.common.options import NetworkOptions, settings
from dia_models import Checkpoint, ModelInputError, ModelSpec, create_model
from dia_models.factory import blueprint, require_classifier, task_of
from dia_models.spec import Network

RUN_FILE = "model.safetensors"


@dataclass(frozen=True)
class Candidate:
    """A network to compare: the checkpoint at `source`, or one with random weights made from `model`."""

    name: str
    source: str | None = None
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> Checkpoint | None:
        """Read the checkpoint, if it is one."""
        return None if self.source is None else replace(Checkpoint.read(self.source), name=self.name)

    def fresh(self, classes: int, channels: int, seed: int) -> Network:
        """Make the network with random weights from `seed`; the random numbers that follow stay as they were."""
        assert self.model is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return create_model(self.model, num_classes=classes, in_channels=channels, **self.options)


def candidates(
    given: NetworkOptions, runs: Iterable[list[Path]] = (), *, tasks: Container[str] = ("classification",)
) -> list[Candidate]:
    """Checkpoints, then networks of runs (a list of files each), then fresh ones that share the options of --set.

    Checkpoints and runs have the names that `cli.common.naming.names` gives. Raises ModelInputError if there is
    nothing to compare, for options without a use, and for a fresh network that is made for another task than `tasks`.
    """
    checkpoints, models, options = given.ckpts or [], given.models or [], settings(given.changes)
    if options and not models:
        raise ModelInputError("set", "these are options of networks made by --model, and there is none")
    sources = [[checkpoint] for checkpoint in checkpoints] + [list(map(str, files)) for files in runs]
    # A run is named for its folder, whichever of its epochs are compared.
    named = names([*checkpoints, *(str(Path(files[0]).with_name(RUN_FILE)) for files in sources[len(checkpoints) :])])
    saved = [Candidate(name, file) for name, files in zip(named, sources, strict=True) for file in files]
    for model in models:
        if task_of(model) not in tasks:
            require_classifier(model, "model")
        blueprint(ModelSpec(name=model, options=dict(options)))  # raises for an option that it does not have
    found = [*saved, *(Candidate(model, model=model, options=options) for model in models)]
    if not found:
        raise ModelInputError("model", "say which networks to compare: --model NAME or --ckpt FILE, several times")
    return found


def run_files(runs: list[Path], every_epoch: bool) -> list[list[Path]]:
    """The checkpoints of training runs: of the last epoch, or of every epoch that was kept."""
    if every_epoch and not runs:
        raise ModelInputError("every-epoch", "say of which run: --run DIR")
    if not runs:
        return []
    from dia_models.runs.run import kept_epochs  # takes seconds
    from dia_models.training.files import MODEL  # takes seconds

    if every_epoch:
        return [kept_epochs(run) for run in runs]
    for run in runs:
        if not (run / MODEL).is_file():
            raise ModelInputError("run", f"{run} is no finished run of dia-train fit: it has no {MODEL}")
    return [[run / MODEL] for run in runs]
