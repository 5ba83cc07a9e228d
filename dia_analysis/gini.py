"""Which earlier layers' attention maps tell what a layer's will be? (section V-A and Fig. 11 of the paper)"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Float32
from torch import Tensor, nn

from dia_analysis.display import Displayed, axes
from dia_analysis.importance import Importance, beyond_two_nearest
from dia_analysis.output import new_directory, write_json
from dia_analysis.probes.stages import StageMaps
from dia_analysis.probes.stream import stream_stages
from dia_analysis.provenance import Provenance
from dia_analysis.sample import ImageSample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = 2**16  # (image, element) pairs of a stage, at most
ELEMENTS = 256  # of an image, at most, as rows
VECTORS = 1024  # images of a stage, at most, as rows of whole vectors
FIRST_FAR = 4  # the first layer with a source beyond its two nearest

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class StageGini:
    """One stage. The target in place i of the arrays is layer i + 2, the source in place j is layer j + 1.

    `numbers` holds the raw values by repeat and fold (see Importance), None for a stage without two layers or without
    rows. `rows` were drawn from `images` images, `elements` of each; `left_out` images had values that are not finite.
    `constant` layers, counted from 1, have the same value in all rows. `between_channels` is the share of the layers'
    variance that lies between the channels' means, which says nothing about images; None for whole vectors.
    `explained` is the share of the vectors' variance that their principal components hold; None for pairs.
    """

    stage: int
    kind: str
    layers: tuple[tuple[str, int], ...]
    images: int
    elements: int
    rows: int
    left_out: int
    constant: tuple[int, ...]
    between_channels: float | None
    explained: float | None
    numbers: Importance | None

    def importance(self) -> np.ndarray:
        """The mean over the repeats: (target, source)."""
        return self._over_first("gini", np.mean)

    def importance_std(self) -> np.ndarray:
        """The spread over the repeats, each a fifth of the trees: (target, source)."""
        return self._over_first("gini", np.std)

    def permutation(self) -> np.ndarray:
        """The mean over the folds of the loss in R² when a source's held-out values change places: (target, source)."""
        return self._over_first("permutation", np.mean)

    def r2(self, *, null: bool = False) -> np.ndarray:
        """The mean over the folds of R² on held-out images, or with `null` for shuffled targets: (target)."""
        return self._over_first("null_r2" if null else "r2", np.mean)

    def mean_r2(self, *, null: bool = False) -> float | None:
        """The mean of `r2` over the targets that have one; None if none has."""
        mean = _mean(self.r2(null=null))
        return mean if np.isfinite(mean) else None

    def above_null(self) -> np.ndarray:
        """Which sources' permutation importance is above every source's for the shuffled target: (target, source)."""
        square = (len(self.layers) - 1,) * 2
        return np.zeros(square, bool) if self.numbers is None else self.numbers.above_null()

    def beyond_two_nearest(self) -> np.ndarray:
        """By repeat, the share of the importance beyond the two nearest layers, mean over the targets from layer 4."""
        return np.full(1, np.nan) if self.numbers is None else beyond_two_nearest(self.numbers.gini)

    def beyond_by_permutation(self) -> float:
        """The same share of the permutation importance, negative values taken as 0."""
        return float(beyond_two_nearest(self.permutation().clip(min=0)[None])[0])

    def beyond_if_flat(self) -> float:
        """What that share is when all sources are equally important."""
        shares = [(layer - 3) / (layer - 1) for layer in range(FIRST_FAR, len(self.layers) + 1)]
        return float(np.mean(shares)) if shares else np.nan

    def to_dict(self) -> dict[str, Any]:
        """The stage as the JSON schema dia.gini/1 has it; None where there is no number."""
        beyond = self.beyond_two_nearest()
        return {
            "stage": self.stage,
            "layers": len(self.layers),
            "importance": _triangle(self.importance()),
            "r2": _plain(self.r2()),
            "null_r2": _plain(self.r2(null=True)),
            "beyond_two_nearest": _number(beyond.mean()),
            "beyond_two_nearest_std": _number(beyond.std()),
            "beyond_two_nearest_permutation": _number(self.beyond_by_permutation()),
            "beyond_two_nearest_if_flat": _number(self.beyond_if_flat()),
            "importance_std": _triangle(self.importance_std()),
            "permutation": _triangle(self.permutation()),
            "above_null": self._judged(),
            "images": self.images,
            "elements": self.elements,
            "rows": self.rows,
            "left_out": self.left_out,
            "constant": list(self.constant),
            "between_channels": self.between_channels,
            "explained": self.explained,
            "kind": self.kind,
            "points": [{"module": module, "call": call} for module, call in self.layers],
        }

    def to_xarray(self) -> xr.Dataset:
        """The raw values with names: gini (repeat, target, source); r2, permutation and their nulls by fold."""
        names = [f"{module}#{call}" for module, call in self.layers]
        by_fold = ("fold", "target", "source")
        dims: dict[str, tuple[str, ...]] = {
            "gini": ("repeat", "target", "source"),
            "permutation": by_fold,
            "null_permutation": by_fold,
        }
        dims |= {"r2": by_fold[:2], "null_r2": by_fold[:2]}
        arrays = {} if self.numbers is None else {name: (d, getattr(self.numbers, name)) for name, d in dims.items()}
        return xr.Dataset(
            {**arrays, "call": ("layer", [call for _, call in self.layers])},
            coords={"layer": names, "target": names[1:], "source": names[:-1]},
            attrs={"stage": self.stage, "kind": self.kind},
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the importance, a row for each target; layers are numbered from 1 in forward order."""
        ax = axes(ax)
        last = len(self.layers)
        image = ax.imshow(self.importance(), vmin=0, cmap="Blues", extent=(0.5, last - 0.5, last + 0.5, 1.5))
        ax.set(title=f"Stage {self.stage}", xlabel="Source layer", ylabel="Target layer")
        ax.figure.colorbar(image, ax=ax, label="Gini importance")
        return ax

    def _judged(self) -> list[list[bool | None]]:
        known, above = np.isfinite(self.permutation()), self.above_null()
        return [
            [bool(above[target, source]) if known[target, source] else None for source in range(target + 1)]
            for target in range(len(above))
        ]

    def _over_first(self, name: str, average: Callable[..., np.ndarray]) -> np.ndarray:
        values = None if self.numbers is None else getattr(self.numbers, name)
        if values is None or not len(values):
            return np.full((len(self.layers) - 1,) * (1 if name.endswith("r2") else 2), np.nan)
        return average(values, axis=0)


@dataclass(frozen=True)
class GiniResult(Displayed):
    """What `gini_importance` found. With `vector`, rows are images; otherwise (image, channel) pairs."""

    stages: tuple[StageGini, ...]
    images: int
    vector: bool
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.gini/1."""
        return {
            "schema": "dia.gini/1",
            **self.provenance.to_dict(),
            "images": self.images,
            "vector": self.vector,
            "stages": [stage.to_dict() for stage in self.stages],
        }

    def summary(self) -> str:
        """A table of the stages, and a sentence on each thing that has no number or must be known to read one."""
        heads = (
            "stage",
            "layers",
            "rows",
            "R²",
            "null R²",
            "beyond two nearest",
            "if flat",
            "by permutation",
            "above null",
        )
        rows = [_row(stage) for stage in self.stages]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        table = ["  ".join(c.rjust(w) for c, w in zip(r, widths, strict=True)) for r in (heads, *rows)]
        return "\n".join([*table, *(note for stage in self.stages for note in _notes(stage))])

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the share of the importance beyond the two nearest layers by stage, with its spread over the repeats."""
        ax = axes(ax)
        shares = np.array([[s.beyond_two_nearest().mean(), s.beyond_two_nearest().std()] for s in self.stages]).T
        ax.bar([str(s.stage) for s in self.stages], np.nan_to_num(shares[0]), yerr=np.nan_to_num(shares[1]))
        ax.set(xlabel="Stage", ylabel="Importance beyond the two nearest layers", ylim=(0, 1))
        return ax

    def save(self, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Write the JSON document and the labelled arrays to a new directory, with a manifest."""
        with new_directory(Path(directory), self.provenance.to_dict(), overwrite=overwrite) as folder:
            write_json(folder / "gini.json", self.to_dict())
            self.write_arrays(folder)
        return Path(directory)

    def write_arrays(self, folder: Path, prefix: str = "") -> None:
        """Write one NetCDF file per stage into a folder that exists; xarray and netCDF tools read them."""
        for stage in self.stages:
            stage.to_xarray().to_netcdf(folder / f"{prefix}stage{stage.stage}.nc", engine="scipy")


def gini_importance(
    model: nn.Module,
    batches: Tensor | Iterable[Any],
    *,
    points: str | Iterable[str] | None = None,
    vector: bool = False,
    seed: int = 0,
    provenance: Provenance | None = None,
    progress: Progress = lambda finished, total: None,
) -> GiniResult:
    """Measure how much each earlier layer of a stage tells a random forest about each later one's attention map.

    `batches` yields the network's input (batch, channel, height, width), alone or first in a tuple; it is moved to
    the network's device. `points` are shell patterns of module names, by default every attention gate, which is h_t
    in DIA-LSTM. `vector` predicts a layer's whole vector, one row per image, instead of a row per (image, channel)
    pair. At most 65,536 pairs or 1,024 images are kept. `seed` gives the forests of scikit-learn's `random_state`.
    `progress` is told how many layers are finished, of how many. The network is left as it was.
    Raises AnalysisInputError if nothing can be captured or `batches` is empty.
    """
    collector = GiniCollector(vector=vector, seed=seed)
    stream_stages(model, batches, collector.add, points=points)
    return collector.result(provenance, progress)


class GiniCollector:
    """Takes attention maps, batch by batch, from a network or a store, and then measures their importance."""

    def __init__(self, *, vector: bool = False, seed: int = 0):
        self.vector, self.seed = vector, seed
        self._first: list[StageMaps] = []
        self._samples: list[ImageSample] = []

    def add(self, stages: list[StageMaps]) -> None:
        """Take the maps of some images, the same stages each time."""
        if not self._first:
            self._first = stages
            self._samples = [self._sample(stage.maps.shape[2]) for stage in stages]
        for sample, stage in zip(self._samples, stages, strict=True):
            sample.update(stage.maps)

    def result(
        self, provenance: Provenance | None = None, progress: Progress = lambda finished, total: None
    ) -> GiniResult:
        """Grow the forests: the long part."""
        total = sum(len(stage.layers) - 1 for stage in self._first)
        finished = iter(range(1, total + 1))
        stages = tuple(
            self._stage(number, lambda: progress(next(finished), total)) for number in range(1, len(self._first) + 1)
        )
        images = max((int(sample.seen) for sample in self._samples), default=0)
        return GiniResult(stages, images, self.vector, provenance or Provenance(seed=self.seed))

    def _sample(self, elements: int) -> ImageSample:
        if self.vector:
            return ImageSample(VECTORS, elements, self.seed)
        kept = min(elements, ELEMENTS)
        return ImageSample(ROWS // kept, kept, self.seed)

    def _stage(self, number: int, done: Callable[[], object]) -> StageGini:
        from dia_analysis.layer_forests import measure, pairs, vectors  # late: its compiler takes a second to load

        first, sample = self._first[number - 1], self._samples[number - 1]
        maps = sample.compute()
        enough = len(first.layers) > 1 and (len(maps) if self.vector else maps[:, 0].size) > 1
        table = (vectors if self.vector else pairs)(maps) if enough else None
        return StageGini(
            stage=number,
            kind=first.kind,
            layers=first.layers,
            images=len(maps),
            elements=maps.shape[2],
            rows=len(maps) if self.vector else maps[:, 0].size,
            left_out=int(sample.left_out),
            constant=_constant(maps),
            between_channels=None if self.vector else _between_channels(maps),
            explained=table.explained if table else None,
            numbers=measure(table, self.seed, done) if table else None,
        )


def _constant(maps: Float32[np.ndarray, "image layer element"]) -> tuple[int, ...]:
    """The layers, counted from 1, in which no forest could split: values that differ by less than 1e-7."""
    if not len(maps):
        return ()
    return tuple(int(layer) + 1 for layer in np.flatnonzero(np.ptp(maps, axis=(0, 2)) <= 1e-7))


def _between_channels(maps: Float32[np.ndarray, "image layer element"]) -> float | None:
    """The share of variance between the means of elements, mean over the layers that vary."""
    values = maps.astype(np.float64)
    if not len(values):
        return None
    variance = values.var((0, 2))
    varies = variance > 0
    return float((values.mean(0).var(1)[varies] / variance[varies]).mean()) if varies.any() else None


def _row(stage: StageGini) -> tuple[str, ...]:
    name = str(stage.stage) if stage.kind == "channel" else f"{stage.stage} ({stage.kind})"
    beyond = stage.beyond_two_nearest()
    share = f"{beyond.mean():.3f} ± {beyond.std():.3f}" if np.isfinite(beyond).all() else "-"
    sources = len(stage.layers) * (len(stage.layers) - 1) // 2
    return (
        name,
        str(len(stage.layers)),
        str(stage.rows),
        _text(_mean(stage.r2())),
        _text(_mean(stage.r2(null=True))),
        share,
        _text(stage.beyond_if_flat()),
        _text(stage.beyond_by_permutation()),
        f"{int(stage.above_null().sum())} of {sources}" if sources and np.isfinite(stage.r2()).any() else "-",
    )


def _notes(stage: StageGini) -> list[str]:
    name, notes = f"Stage {stage.stage}", []
    if stage.left_out:
        notes.append(f"{name}: {stage.left_out} images have values that are not finite and were left out.")
    if len(stage.layers) == 1:
        notes.append(f"{name} has one attention layer ({stage.layers[0][0]}), so no forest was grown.")
    elif stage.numbers is None:
        notes.append(f"{name} has {stage.rows} rows, too few for a forest; at least 2 are needed.")
    else:
        notes += [f"{name}{rest}" for rest in _reservations(stage)]
    return notes


def _reservations(stage: StageGini) -> list[str]:
    notes = []
    if stage.constant:
        listed = ", ".join(map(str, stage.constant))
        notes.append(f": layers whose maps are the same everywhere: {listed}. As sources they tell nothing.")
    without = np.flatnonzero(np.isnan(stage.importance()[:, 0])) + 2
    if len(without):
        listed = ", ".join(map(str, without))
        notes.append(f": no importance for layers {listed}: no forest could split, as all is constant there or before.")
    if len(stage.layers) == 2:
        notes.append(" has two layers: the one source has importance 1 by construction.")
    if len(stage.layers) < FIRST_FAR:
        notes.append(f" has {len(stage.layers)} layers, none of which has a source beyond its two nearest.")
    if stage.explained is not None:
        notes.append(f": the principal components hold {stage.explained:.0%} of the vectors' variance.")
    if not np.isfinite(stage.r2()).any():
        notes.append(": no R², as there are too few images to hold some out, or too few rows.")
    return notes


def _triangle(values: np.ndarray) -> list[list[float | None]]:
    return [_plain(row[: target + 1]) for target, row in enumerate(values)]


def _plain(values: np.ndarray) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


def _text(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"
