"""The networks that a command is to open: checkpoints, the kept epochs of runs, and any other by name."""

import json
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cli.common.naming import distinct, names
from cli.common.options import NetworkOptions, given_name, setting
from dia_models import Checkpoint, ModelInputError, ModelSpec, OpenedNetwork, open_network
from dia_models.factory import blueprint, require_classifier, task_of
from dia_models.networks.open_network import DataFacts, open_checkpoint
from dia_models.networks.preprocessing import Asked
from dia_models.networks.sources import find_source, is_own

RUN_FILE = "model.safetensors"
ARGUMENTS: dict[str, tuple[str, Callable[[str], Any]]] = {  # by option: `open_network`'s name, and how it is read
    "weights": ("weights", str),
    "image_size": ("image_size", lambda text: [int(part) for part in text.split(",")]),
    "mean": ("mean", lambda text: [float(part) for part in text.split(",")]),
    "std": ("std", lambda text: [float(part) for part in text.split(",")]),
    "channels": ("channels", int),
    "classes": ("classes", str),
    "num_classes": ("num_classes", int),
}
OF_IMAGES = ("image_size", "mean", "std", "channels", "classes")  # what a checkpoint's network takes too


@dataclass(frozen=True)
class Candidate:
    """A network to open: the checkpoint at `source`, or another by name, with `open_network`'s arguments."""

    name: str
    source: str
    given: Mapping[str, Any] = field(default_factory=dict)
    saved: bool = False

    @property
    def random(self) -> bool:
        """Whether its weights are drawn from a seed."""
        return not (self.saved or self.given.get("weights") or self.given.get("pretrained"))

    @property
    def words(self) -> list[str]:
        """The options that name this network again."""
        given = {key: value for key, value in self.given.items() if key in ARGUMENTS}
        texts = [",".join(map(str, v)) if isinstance(v, list) else str(v) for v in given.values()]
        flags = [(f"--{key.replace('_', '-')}", text) for key, text in zip(given, texts, strict=True)]
        flags += [("--set", f"{key}={json.dumps(value)}") for key, value in self.given.get("options", {}).items()]
        more = [word for flag, text in flags for word in (flag, text if self.saved else f"{self.name}:{text}")]
        if self.saved:
            return ["--ckpt", self.source, *more]
        named = self.source if self.name == self.source and not more else f"{self.name}={self.source}"
        return ["--model", named, *more, *["--pretrained"][: bool(self.given.get("pretrained"))]]

    def open(self, data: DataFacts | None = None, seed: int = 0) -> OpenedNetwork:
        """Open it for these images; random weights are drawn from the seed."""
        if not self.saved:
            return replace(open_network(self.source, data=data, seed=seed, **self.given), name=self.name)
        about = {"image_size": None, "mean": None, "std": None, "channels": None} | dict(self.given)
        classes = about.pop("classes", None)
        return open_checkpoint(replace(Checkpoint.read(self.source), name=self.name), Asked.of(**about), classes)


def candidates(
    given: NetworkOptions, runs: Iterable[list[Path]] = (), *, tasks: Container[str] = ("classification",)
) -> list[Candidate]:
    """Checkpoints, then networks of runs (a list of files each), then those that --model names.

    Raises ModelInputError if there is nothing to compare, for options without a use, and for a network of ours that is
    made for another task than `tasks`.
    """
    sources = [[checkpoint] for checkpoint in given.ckpts or []] + [list(map(str, files)) for files in runs]
    # A run is named for its folder, whichever of its epochs are compared.
    first = len(given.ckpts or [])
    named = names([*(given.ckpts or []), *(str(Path(files[0]).with_name(RUN_FILE)) for files in sources[first:])])
    models = [given_name(each) for each in given.models or []]
    titles = distinct([*named, *(name or find_source(model).name for name, model in models)])[len(named) :]
    values, settings = _values(given, titles, [name for name, _ in models])
    shown = {key: value for key, value in values[None].items() if key in OF_IMAGES}
    saved = [Candidate(n, file, shown, True) for n, files in zip(named, sources, strict=True) for file in files]
    found = []
    for title, (_, model) in zip(titles, models, strict=True):
        made = {"options": {**settings[None], **settings[title]}, "pretrained": given.pretrained}
        found.append(Candidate(title, model, {**values[None], **values[title], **made}))
    for each in found:
        _check(each, tasks)
    if not (saved or found):
        raise ModelInputError("model", "say which networks: --ckpt FILE or --model NAME, several times")
    return [*saved, *found]


def _values(
    given: NetworkOptions, titles: list[str], named: list[str | None]
) -> tuple[dict[str | None, dict[str, Any]], dict[str | None, dict[str, Any]]]:
    """The values of the options, and of --set, for each network, and under None for all."""
    everyone: list[str | None] = [None, *titles]
    values: dict[str | None, dict[str, Any]] = {name: {} for name in everyone}
    settings: dict[str | None, dict[str, Any]] = {name: {} for name in everyone}
    for option, (argument, read) in ARGUMENTS.items():
        for text in getattr(given, option) or ():
            name, value = _scoped(text, named)
            if argument in values[name]:
                raise ModelInputError(option, f"{text} is given beside another value for the same network")
            values[name][argument] = _read(option, read, value)
    for text in given.changes or ():
        name, value = _scoped(text, named)
        settings[name] |= [setting(value)]
    for option, used in {"set": settings[None], "weights": values[None].get("weights")}.items():
        if used and not titles:
            raise ModelInputError(option, "this is for networks that --model names, and there is none")
    if values[None].get("weights") and len(titles) > 1:
        raise ModelInputError("weights", "there are several networks; say whose: NAME:FILE, after --model NAME=...")
    if given.pretrained and not titles:
        raise ModelInputError("pretrained", "this is for networks that --model names, and there is none")
    return values, settings


def _scoped(text: str, named: Container[str | None]) -> tuple[str | None, str]:
    """Which network a value is for, None for all, and the value."""
    name, colon, value = text.partition(":")
    return (name, value) if colon and name in named else (None, text)


def _read(option: str, read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError:
        wanted = "whole numbers" if option in ("image_size", "channels", "num_classes") else "numbers"
        form = f"{wanted}, such as {'224 or 224,160' if option == 'image_size' else '0.5 or 0.5,0.4,0.4'}"
        raise ModelInputError(option, f"{text!r} given; accepted: {form}, for one network NAME:VALUE") from None


def _check(candidate: Candidate, tasks: Container[str]) -> None:
    """Raise ModelInputError for a network of ours of another task, and for an option that it does not have."""
    if is_own(candidate.source):
        if task_of(candidate.source) not in tasks:
            require_classifier(candidate.source, "model")
        blueprint(ModelSpec(name=candidate.source, options=dict(candidate.given["options"])))


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
