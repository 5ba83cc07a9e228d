"""Sweeps: which networks are trained on what, and how often, to answer one question; small files with names."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dia_models.checkpoints.files import SUFFIX
from dia_models.errors import ModelInputError, unknown
from dia_models.factory import classifier_of
from dia_models.spec import ModelSpec, Option
from dia_models.training.config import RunConfig
from dia_models.training.recipe import load_recipe

ScaleName = Literal["paper", "laptop"]
COLUMNS = ("name", "source", "data", "networks", "recipe", "seeds", "runs", "hours on an H100", "hours on two cores")
SCALES: tuple[ScaleName, ...] = ("paper", "laptop")
_START = (
    "{sweep} at {scale} scale starts every network from a checkpoint: give a folder of them, where "
    f"{{start}}{SUFFIX} and so on are what dia-train fit leaves"
)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Variant(_Table):
    """One kind of network: its attention (empty: none), options of the network and changes of the recipe (`set`).

    `versus` names the variant that it is compared with; by default the sweep's reference, if it has one. `start` is
    what follows the backbone in the name of the checkpoint that it starts from, where that is not its own attention.
    """

    attention: str = ""
    options: dict[str, Option] = {}
    set: dict[str, Any] = {}
    versus: str | None = None
    start: str | None = None


class Scale(_Table):
    """On what and how large. `backbones` says for each backbone the recipe that it is trained with.

    `variants` replaces the sweep's; `options` adds to them, by backbone and variant. `needs_start` says that every
    network starts from a checkpoint. `hours` are estimates of the time for all runs, by machine.
    """

    data: tuple[str, ...] = Field(min_length=1)
    backbones: dict[str, str] = Field(min_length=1)
    seeds: int = Field(ge=1)
    image_size: int | None = Field(default=None, ge=8)
    channels: int = Field(default=3, ge=1, le=3)
    needs_start: bool = False
    set: dict[str, Any] = {}
    variants: dict[str, Variant] | None = None
    options: dict[str, dict[str, dict[str, Option]]] = {}
    hours: dict[str, float] = {}


class SweepMetric(_Table):
    """What runs are compared by: `test_<key>` of their results, its name in words, and which way is better."""

    key: str = "accuracy"
    words: str = "accuracy"
    unit: Literal["percent", ""] = "percent"
    higher_is_better: bool = True


class Sweep(_Table):
    """A question, and the runs that answer it: every variant of every backbone on all data, with several seeds."""

    name: str
    title: str
    source: str
    question: str
    reference: str | None = None
    metric: SweepMetric = SweepMetric()
    variants: dict[str, Variant] = Field(min_length=1)
    scales: dict[ScaleName, Scale] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_exist(self) -> "Sweep":
        for scale in self.scales:
            variants = self.variants_at(scale)
            named = [v.versus or self.reference for v in variants.values() if v.versus or self.reference]
            named += [name for options in self.scales[scale].options.values() for name in options]
            if missing := [name for name in named if name not in variants]:
                raise ValueError(f"{missing[0]!r} is not a variant; there are {', '.join(variants)}")
        return self

    def scale(self, name: str) -> Scale:
        """One of the sweep's scales. Raises ModelInputError if it has no such."""
        for known, scale in self.scales.items():
            if known == name:
                return scale
        raise unknown("scale", name, self.scales)

    def variants_at(self, scale: str) -> dict[str, Variant]:
        """The variants at a scale, by name."""
        return self.scale(scale).variants or self.variants

    def versus(self, scale: str, variant: str) -> str | None:
        """The variant that another is compared with; None for the reference itself."""
        against = self.variants_at(scale)[variant].versus or self.reference
        return None if against == variant else against

    def row(self, scale: str) -> tuple[str, ...]:
        """The sweep at a scale in words, by the columns `COLUMNS`."""
        size, kinds = self.scale(scale), len(self.variants_at(scale))
        runs = len(size.data) * len(size.backbones) * kinds * size.seeds
        hours = (f"{size.hours[machine]:,.7g}" if machine in size.hours else "" for machine in ("H100", "two cores"))
        networks, recipes = f"{', '.join(size.backbones)} x {kinds}", ", ".join(dict.fromkeys(size.backbones.values()))
        return self.name, self.source, ", ".join(size.data), networks, recipes, str(size.seeds), str(runs), *hours

    def runs(self, scale: str, seeds: Iterable[int], changes: dict[str, Any] | None = None) -> list["PlannedRun"]:
        """Every run, seed by seed, so that a sweep which is interrupted has compared all variants.

        `changes` are fields of the recipe that override everything. Raises ModelInputError for what cannot be run.
        Where the scale `needs_start`, the runs are to be given to `start_from_checkpoints`.
        """
        size = self.scale(scale)
        cells = list(product(size.data, size.backbones, self.variants_at(scale)))
        return [self._run(scale, *cell, seed, changes or {}) for seed in seeds for cell in cells]

    def start_from_checkpoints(self, scale: str, runs: list["PlannedRun"], folder: Path | None) -> list["PlannedRun"]:
        """The runs, each starting from the checkpoint in `folder` that is named for its network or its classifier.

        Raises ModelInputError if one is missing, and if there is no folder where the scale needs one.
        """
        if folder is None and not self.scale(scale).needs_start:
            return runs
        if folder is None:
            raise ModelInputError(
                "from", f"none given, but {_START.format(sweep=self.name, scale=scale, start=runs[0].start)}"
            )
        paths = {run.start: folder.expanduser().absolute() / f"{run.start}{SUFFIX}" for run in runs}
        if missing := sorted({path.name for path in paths.values() if not path.is_file()}):
            raise ModelInputError("from", f"{folder} lacks {', '.join(missing)}")
        return [run.start_from(paths[run.start]) for run in runs]

    def _run(self, scale: str, data: str, backbone: str, name: str, seed: int, changes: dict[str, Any]) -> "PlannedRun":
        size, variant = self.scale(scale), self.variants_at(scale)[name]
        model = f"{backbone}_{variant.attention}" if variant.attention else backbone
        config = RunConfig(
            model=model,
            options={**variant.options, **size.options.get(backbone, {}).get(name, {})},
            data=data,
            recipe_name=size.backbones[backbone],
            recipe=load_recipe(size.backbones[backbone], **{**size.set, **variant.set, **changes}),
            image_size=size.image_size,
            channels=size.channels,
            seed=seed,
        )
        return PlannedRun(data, backbone, name, seed, config, variant.start)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: the cell that it belongs to, and its configuration."""

    data: str
    backbone: str
    variant: str
    seed: int
    config: RunConfig
    other_start: str | None = None

    @property
    def start(self) -> str:
        """The name of the network whose weights it can start from: itself or, for a detector, its classifier.

        Where the variant says so, another one with the same backbone.
        """
        if self.other_start is not None:
            return f"{self.backbone}_{self.other_start}"
        return classifier_of(ModelSpec(name=self.config.model)).name

    def start_from(self, checkpoint: Path) -> "PlannedRun":
        """The same run from the weights of a checkpoint."""
        return replace(self, config=self.config.model_copy(update={"start_from": str(checkpoint)}))

    @property
    def directory(self) -> str:
        """The name of its directory below the sweep's."""
        return "-".join([*map(slug, (self.data, self.backbone, self.variant)), str(self.seed)])


def slug(text: str) -> str:
    """Words for a file's name."""
    return re.sub(r"[^a-z0-9_.]+", "-", text.lower()).strip("-.") or "x"


def list_sweeps() -> list[str]:
    """The names of the sweeps that come with the package."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load_sweep(name: str) -> Sweep:
    """Read a sweep by name, or from a TOML file of one's own.

    Raises ModelInputError for an unknown name, and for a file that is none, saying where it is wrong.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if name not in list_sweeps():
            raise unknown("sweep", name, list_sweeps(), listed_by="dia-train recipes")
        path = _folder() / f"{name}.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return Sweep.model_validate({"name": slug(path.stem), **content})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelInputError("sweep", f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise ModelInputError("sweep", f"{path}: {_first(error)}") from error


def parse_seeds(text: str) -> list[int]:
    """`0-4` is 0, 1, 2, 3, 4; `0,7` is 0 and 7. Raises ModelInputError for anything else."""
    try:
        return list(dict.fromkeys(seed for part in text.split(",") for seed in _range(part)))
    except ValueError as error:
        raise ModelInputError("seeds", f"{text!r} given; accepted: 0-4 or 0,7 or 3") from error


def _range(part: str) -> Iterator[int]:
    first, dash, last = part.strip().partition("-")
    low, high = int(first), int(last if dash else first)
    if not low <= high < low + 1000:
        raise ValueError
    yield from range(low, high + 1)


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, with the place; for a misspelt key the nearest one."""
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    *parents, last = [str(part) for part in first["loc"]] or ["file"]
    place = ".".join([*parents, last])
    if first["type"] == "extra_forbidden":
        return str(unknown("key", place, [".".join([*parents, key]) for key in _keys(parents)]))
    return f"{place}: {first['msg']}"


def _keys(parents: list[str]) -> Iterable[str]:
    if "variants" in parents:
        return Variant.model_fields
    if "metric" in parents:
        return SweepMetric.model_fields
    return Scale.model_fields if parents else Sweep.model_fields


def _folder() -> Path:
    return Path(str(files("dia_models") / "sweeps"))
