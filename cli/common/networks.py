"""The networks that a command is to open: checkpoints, the kept epochs of runs, and any other by name."""

import json
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cli.common.options import NetworkOptions
from dia_models import Checkpoint, ModelInputError, ModelSpec, OpenedNetwork, open_network
from dia_models.checkpoints.names import distinct_names, numbered_again
from dia_models.data.selection import Selection
from dia_models.factory import blueprint, require_classifier, task_of
from dia_models.networks.data_facts import DataFacts, data_facts
from dia_models.networks.named import split_name, split_value
from dia_models.networks.open_network import open_checkpoint
from dia_models.networks.sources import find_source, is_own
from dia_models.settings import parse_settings

RUN_FILE = "model.safetensors"


def _numbers(kind: type[int] | type[float]) -> Callable[[str], Any]:
    return lambda text: [kind(part) for part in text.split(",")]


ARGUMENTS: dict[str, Callable[[str], Any]] = {  # of `open_network`, which the options are named for: how each is read
    **{"weights": str, "classes": str, "channels": int, "num_classes": int, "crop": float},
    **{"image_size": _numbers(int), "mean": _numbers(float), "std": _numbers(float)},
}


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
        if self.saved:
            return ["--ckpt", self.source]
        given = {key: value for key, value in self.given.items() if key in ARGUMENTS}
        texts = {key: ",".join(map(str, v)) if isinstance(v, list) else str(v) for key, v in given.items()}
        flags = [(f"--{key.replace('_', '-')}", text) for key, text in texts.items()]
        flags += [("--set", f"{key}={json.dumps(value)}") for key, value in self.given.get("options", {}).items()]
        more = [word for flag, text in flags for word in (flag, f"{self.name}:{text}")]
        named = self.source if self.name == self.source and not more else f"{self.name}={self.source}"
        return ["--model", named, *more, *["--pretrained"][: bool(self.given.get("pretrained"))]]

    def open(self, data: DataFacts | None = None, seed: int = 0) -> OpenedNetwork:
        """Open it for images of which this is known; random weights are drawn from the seed."""
        if self.saved:
            return open_checkpoint(replace(Checkpoint.read(self.source), name=self.name))
        return replace(open_network(self.source, data=data, seed=seed, **self.given), name=self.name)

    def facts(self, images: Selection) -> DataFacts:
        """What it may assume of images; for a network of ours with random weights, files are read to know."""
        if self.saved:
            return DataFacts()
        size = self.given.get("image_size")
        read = self.random and is_own(self.source)
        return data_facts(images, None if size is None else (size[0], size[-1]), read=read)


def candidates(
    given: NetworkOptions, runs: Iterable[list[Path]] = (), *, tasks: Container[str] = ("classification",)
) -> list[Candidate]:
    """Checkpoints, then networks of runs (a list of files each), then those that --model names.

    Raises ModelInputError if there is none, for options without a use, and for a network of ours that is made for
    another task than `tasks`.
    """
    checkpoints = given.ckpts or []
    sources = [[checkpoint] for checkpoint in checkpoints] + [list(map(str, files)) for files in runs]
    # A run is named for its folder, whichever of its epochs are compared.
    folders = [str(Path(files[0]).with_name(RUN_FILE)) for files in sources[len(checkpoints) :]]
    named = distinct_names([*checkpoints, *folders])
    found = [Candidate(name, file, saved=True) for name, files in zip(named, sources, strict=True) for file in files]
    for each in _of_models(given, named):
        if is_own(each.source):
            if task_of(each.source) not in tasks:
                require_classifier(each.source, "model")
            blueprint(ModelSpec(name=each.source, options=each.given["options"]))  # raises for an unknown option
        found.append(each)
    if not found:
        raise ModelInputError("model", "say which networks: --ckpt FILE or --model NAME, several times")
    return found


def _of_models(given: NetworkOptions, taken: list[str]) -> list[Candidate]:
    """The networks that --model names, each with its values."""
    models = [split_name(each) for each in given.models or []]
    titles = numbered_again([*taken, *(name or find_source(model).name for name, model in models)])[len(taken) :]
    if not models:
        for option in (*ARGUMENTS, "changes", "pretrained"):
            if getattr(given, option):
                option = "set" if option == "changes" else option
                raise ModelInputError(option, "this is for networks that --model names, and there is none")
    values, settings = _values(given, titles, [name for name, _ in models])
    if values[None].get("weights") and len(models) > 1:
        raise ModelInputError("weights", "there are several networks; say whose: NAME:FILE, after --model NAME=...")
    found = []
    for title, (_, model) in zip(titles, models, strict=True):
        made = {"options": {**settings[None], **settings[title]}, "pretrained": given.pretrained}
        found.append(Candidate(title, model, {**values[None], **values[title], **made}))
    return found


Values = dict[str | None, dict[str, Any]]


def _values(given: NetworkOptions, titles: list[str], named: list[str | None]) -> tuple[Values, Values]:
    """The values of the options, and of --set, for each network, and under None for all."""
    values: Values = {name: {} for name in (None, *titles)}
    settings: Values = {name: {} for name in (None, *titles)}
    for option, read in ARGUMENTS.items():
        for text in getattr(given, option) or ():
            name, value = split_value(text, named)
            _refuse_unknown(option, name, text)
            if option in values[name]:
                raise ModelInputError(option, f"{text} is given beside another value for the same network")
            values[name][option] = _read(option, read, value)
    for text in given.changes or ():
        name, value = split_value(text, named)
        settings[name] |= parse_settings([value])
    return values, settings


def _refuse_unknown(option: str, name: str | None, text: str) -> None:
    """Raise ModelInputError for a file of weights or classes that is meant for a network of no such name."""
    other, colon, file = text.partition(":")
    if name is None and colon and option in ("weights", "classes") and not Path(text).exists() and Path(file).exists():
        raise ModelInputError(option, f"{text} given, but no network is named {other}; name it: --model {other}=...")


def _read(option: str, read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError:
        wanted = "whole numbers" if option in ("image_size", "channels", "num_classes") else "numbers"
        examples = {"image_size": "224 or 224,160", "channels": "1", "num_classes": "10", "crop": "0.875"}
        form = f"{wanted}, such as {examples.get(option, '0.5 or 0.5,0.4,0.4')}"
        raise ModelInputError(option, f"{text!r} given; accepted: {form}, for one network NAME:VALUE") from None


def sweep_files(sweeps: list[Path]) -> list[list[Path]]:
    """The checkpoints of the finished runs in sweeps' folders. Raises ModelInputError for a folder without any."""
    found = []
    for folder in sweeps:
        files = sorted(folder.glob(f"*/{RUN_FILE}"))
        if not files:
            text = f"{folder} holds no finished run: none of its folders has a {RUN_FILE}; give the folder of a sweep"
            raise ModelInputError("runs", text)
        found += [[file] for file in files]
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
