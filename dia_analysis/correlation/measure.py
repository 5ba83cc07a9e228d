"""How strongly do the attention maps of a stage's layers correlate? (section I and Fig. 2 of the paper)"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchmetrics import Metric

from dia_analysis.distributed import all_gather
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.stages import StageMaps
from dia_analysis.results.display import Displayed, axes
from dia_analysis.results.output import new_directory, write_json
from dia_analysis.results.provenance import Provenance
from dia_analysis.store.source import Source, open_source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER_MEAN_R = 0.85  # section I: the average "up to" 0.85, the averages of Fig. 2 "exceed 0.85"
STRONG = 0.8  # section I: "greater than 0.8 indicates a strong correlation"
BINS = 2**16
DRAWN_BINS = 2**8
SAVED_BINS = 2**11
ROUNDINGS = 8  # a map is constant if its spread is below so many roundings of its own length
EXAMPLES = 4
UNFIT = "not finite (NaN or infinite)"
VALUES_AT_ONCE = 2**24  # self-attention maps of a whole batch, in float64 and three times, would not fit


@dataclass(frozen=True)
class Deviations:
    """Maps less their mean, scaled to length 1; NaN for a map that is constant or holds a value that is not finite."""

    units: Float[Tensor, "image layer element"]
    constant: Bool[Tensor, "image layer"]
    finite: Bool[Tensor, "image layer"]

    @classmethod
    def of(cls, maps: Float[Tensor, "image layer element"], made_in: torch.dtype | None = None) -> "Deviations":
        """Of maps that a network made in the type `made_in`, by default the maps' own, whichever is coarser.

        A map is constant if the length of its deviation from its mean is at most 8 eps of that type times the length
        of the map itself: what is left is rounding. Computed in float64, the mean first and then the deviations.
        """
        values = maps.to("cpu", torch.float64)
        deviations = values - values.mean(-1, keepdim=True)
        lengths = deviations.norm(dim=-1)
        rounding = max(torch.finfo(dtype).eps for dtype in (maps.dtype, made_in or maps.dtype))
        finite = lengths.isfinite()
        varies = lengths > ROUNDINGS * rounding * values.norm(dim=-1)
        units = deviations / torch.where(varies & finite, lengths, torch.nan)[..., None]
        return cls(units, finite & ~varies, finite)

    @property
    def vary(self) -> Bool[Tensor, "image layer"]:
        """Which maps have a direction, so that r is defined."""
        return self.finite & ~self.constant

    def pearson(self) -> Float[Tensor, "image layer layer"]:
        """Pearson's r between every two layers of each image, NaN where one of the two has no direction."""
        return (self.units @ self.units.mT).clamp(-1, 1)


def pearson(
    maps: Float[Tensor, "image layer element"], made_in: torch.dtype | None = None
) -> tuple[Float[Tensor, "image layer layer"], Bool[Tensor, "image layer layer"]]:
    """Pearson's r between every two layers of each image, over the elements, in float64, and where it is defined.

    It is not defined (r is NaN) for a map that is constant but for the rounding of the type in which the network made
    it (see `Deviations.of`), or that has a value which is not finite.
    """
    found = Deviations.of(maps, made_in)
    return found.pearson(), found.vary[:, :, None] & found.vary[:, None, :]


class PearsonBetweenLayers(Metric):
    """Streams the statistics of `pearson` over images; its size does not depend on how many there are.

    All counts and sums add up over processes. The median is read from a histogram of 65,536 bins over [-1, 1],
    so it is exact to 2e-5; all else is exact.
    """

    full_state_update = False
    total: Float[Tensor, "layer layer"]
    defined: Int64[Tensor, "layer layer"]
    constant: Int64[Tensor, "layer"]
    not_finite: Int64[Tensor, "layer"]
    squares: Float[Tensor, ""]
    strong: Int64[Tensor, ""]
    histogram: Int64[Tensor, "bin"]
    images: Int64[Tensor, ""]

    def __init__(self, layers: int):
        super().__init__()
        self.pairs = torch.triu_indices(layers, layers, offset=1)
        square = (layers, layers)
        self.add_state("total", torch.zeros(square, dtype=torch.float64), "sum")
        self.add_state("defined", torch.zeros(square, dtype=torch.int64), "sum")
        self.add_state("constant", torch.zeros(layers, dtype=torch.int64), "sum")
        self.add_state("not_finite", torch.zeros(layers, dtype=torch.int64), "sum")
        self.add_state("squares", torch.tensor(0.0, dtype=torch.float64), "sum")
        self.add_state("strong", torch.tensor(0), "sum")
        self.add_state("histogram", torch.zeros(BINS, dtype=torch.int64), "sum")
        self.add_state("images", torch.tensor(0), "sum")

    def update(self, maps: Float[Tensor, "image layer element"], made_in: torch.dtype | None = None) -> None:
        """Add some images; `made_in` is the type in which the network made the maps, by default their own."""
        images = max(1, VALUES_AT_ONCE // (maps.shape[1] * maps.shape[2]))
        for part in torch.split(maps, images):
            self._add(Deviations.of(part, made_in))

    def _add(self, found: Deviations) -> None:
        r, defined = found.pearson(), found.vary[:, :, None] & found.vary[:, None, :]
        self.total += r.nan_to_num(0.0).sum(0)
        self.defined += defined.sum(0)
        self.constant += found.constant.sum(0)
        self.not_finite += (~found.finite).sum(0)
        self.images += len(r)
        rows, columns = self.pairs
        values = r[:, rows, columns][defined[:, rows, columns]]
        self.squares += values.square().sum()
        self.strong += (values > STRONG).sum()
        bins = ((values + 1) * (BINS / 2)).long().clamp(max=BINS - 1)
        self.histogram += torch.bincount(bins, minlength=BINS)

    def compute(self) -> dict[str, Any]:
        """The statistics as plain numbers and arrays, named as in StageCorrelation."""
        rows, columns = self.pairs
        count = int(self.defined[rows, columns].sum())
        pairs = int(self.images) * len(rows)
        numbers: dict[str, Any] = dict.fromkeys(("mean_r", "std_r", "median_r", "share_above_0_8"))
        if count:
            mean = float(self.total[rows, columns].sum()) / count
            numbers = {
                "mean_r": mean,
                "std_r": max(float(self.squares) / count - mean**2, 0.0) ** 0.5,
                "median_r": _median(self.histogram.numpy()),
                "share_above_0_8": int(self.strong) / count,
            }
        matrix = (self.total / self.defined).numpy()  # 0 / 0 is NaN: this pair was never defined
        return {
            **numbers,
            "pairs": pairs,
            "undefined": pairs - count,
            "constant": self.constant.numpy(),
            "not_finite": self.not_finite.numpy(),
            "matrix": matrix,
            "histogram": self.histogram.numpy(),
        }


@dataclass(frozen=True)
class StageCorrelation:
    """One stage. The statistics are over all (image, layer pair) values of r; None if there is none.

    `pairs` counts those values, of which `undefined` do not exist because a map was constant or not finite;
    `constant` and `not_finite` count the images on which each layer's map was.
    `matrix` (layer, layer) is the mean over images, NaN where never defined. `std_r` divides by the count.
    `histogram` counts r in equal bins from -1 to 1. `examples` (image, layer, element) are the first images' maps.
    """

    stage: int
    kind: str
    layers: tuple[tuple[str, int], ...]
    channels: int
    mean_r: float | None
    std_r: float | None
    median_r: float | None
    share_above_0_8: float | None
    pairs: int
    undefined: int
    constant: Int64[np.ndarray, "layer"]
    not_finite: Int64[np.ndarray, "layer"]
    matrix: Float[np.ndarray, "layer layer"]
    histogram: np.ndarray
    examples: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """The stage as the JSON schema dia.correlation/1 has it."""
        return {
            "stage": self.stage,
            "layers": len(self.layers),
            "channels": self.channels,
            "mean_r": self.mean_r,
            "std_r": self.std_r,
            "median_r": self.median_r,
            "share_above_0_8": self.share_above_0_8,
            "pairs": self.pairs,
            "undefined": self.undefined,
            "constant": self.constant.tolist(),
            "not_finite": self.not_finite.tolist(),
            "matrix": [[None if np.isnan(r) else float(r) for r in row] for row in self.matrix],
            "kind": self.kind,
            "points": [{"module": module, "call": call} for module, call in self.layers],
        }

    def to_xarray(self) -> xr.Dataset:
        """The arrays with names: matrix (layer, other), histogram (r), examples (image, layer, element)."""
        edges = np.linspace(-1, 1, SAVED_BINS + 1)
        counts = self.histogram.reshape(SAVED_BINS, -1).sum(1).astype(np.float64)
        names = [f"{module}#{call}" for module, call in self.layers]
        return xr.Dataset(
            {
                "matrix": (("layer", "other"), self.matrix),
                "histogram": ("r", counts),
                "examples": (("image", "layer", "element"), self.examples),
                "call": ("layer", [call for _, call in self.layers]),
            },
            coords={"layer": names, "other": names, "r": (edges[:-1] + edges[1:]) / 2},
            attrs={"stage": self.stage, "kind": self.kind},
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the matrix; layers are numbered from 1 in forward order."""
        ax = axes(ax)
        edge = len(self.layers) + 0.5
        image = ax.imshow(self.matrix, vmin=-1, vmax=1, cmap="RdBu_r", extent=(0.5, edge, edge, 0.5))
        ax.set(title=f"Stage {self.stage}", xlabel="Layer", ylabel="Layer")
        ax.figure.colorbar(image, ax=ax, label="Pearson r")
        return ax


@dataclass(frozen=True)
class CorrelationResult(Displayed):
    """What `measure_correlation` found. `mean_r` is over all defined (image, layer pair) values of all stages."""

    stages: tuple[StageCorrelation, ...]
    num_images: int
    mean_r: float | None
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.correlation/1."""
        return {
            "schema": "dia.correlation/1",
            **self.provenance.to_dict(),
            "images": self.num_images,
            "mean_r": self.mean_r,
            "stages": [stage.to_dict() for stage in self.stages],
        }

    def summary(self) -> str:
        """A table of the stages, and a sentence on each stage that has no number."""
        heads = ("stage", "layers", "channels", "mean r", "std", "median", "r > 0.8", "pairs", "undefined")
        rows = [_row(stage) for stage in self.stages]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        table = ["  ".join(c.rjust(w) for c, w in zip(r, widths, strict=True)) for r in (heads, *rows)]
        return "\n".join([*table, *(note for stage in self.stages for note in _notes(stage, self.num_images))])

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the distribution of r over images and layer pairs, one curve per stage (Fig. 2c)."""
        ax = axes(ax)
        for stage in self.stages:
            density = stage.histogram.reshape(DRAWN_BINS, -1).sum(1) * (DRAWN_BINS / 2 / max(stage.histogram.sum(), 1))
            ax.stairs(density, np.linspace(-1, 1, DRAWN_BINS + 1), label=f"Stage {stage.stage}")
        ax.set(xlabel="Pearson r between two layers", ylabel="Density")
        ax.legend()
        return ax

    def save(self, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Write the JSON document and the labelled arrays to a new directory, with a manifest."""
        with new_directory(Path(directory), self.provenance.to_dict(), overwrite=overwrite) as folder:
            write_json(folder / "correlation.json", self.to_dict())
            self.write_arrays(folder)
        return Path(directory)

    def write_arrays(self, folder: Path, prefix: str = "") -> None:
        """Write one NetCDF file per stage into a folder that exists; xarray and netCDF tools read them."""
        for stage in self.stages:
            stage.to_xarray().to_netcdf(folder / f"{prefix}stage{stage.stage}.nc", engine="scipy")


def measure_correlation(
    source: Source,
    batches: Tensor | Iterable[Any] | None = None,
    *,
    points: str | Iterable[str] | None = None,
    batch_size: int | None = None,
    provenance: Provenance | None = None,
) -> CorrelationResult:
    """Measure how the attention maps of a network's layers correlate, image by image, stage by stage.

    A network runs in evaluation mode and is left as it was. Memory does not grow with the number of images. Where
    several processes are joined (torchrun), each is given its own batches, and all get the result of all.
    The numbers from a float32 store of a network that computes in float32 are equal to the network's own, if the
    batches are as large. A float16 store rounds every map to 11 significant bits.

    Args:
        source: A network, or a capture store (or its path).
        batches: The network's input (batch, channel, height, width), alone or first in a tuple; it is moved to the
            network's device. None for a store.
        points: Shell patterns of module names, by default every attention gate. None for a store.
        batch_size: How many images are read from a store at a time, by default as many as were captured at a time.
        provenance: Where the network and the images come from; a store has its own.

    Returns:
        Pearson's r between the layers of each stage, over all images.

    Raises:
        AnalysisInputError: Nothing can be captured, there are no images, or the path is no whole capture store.
    """
    stream, known = open_source(source, batches, points, batch_size)
    streams: list[_StageStream] = []

    def add(stages: list[StageMaps]) -> None:
        streams.extend(map(_StageStream.start, stages if not streams else ()))
        for each, stage in zip(streams, stages, strict=True):
            each.add(stage)

    images = stream(add)
    add(_layout(streams))
    return _result(streams, images, provenance or known or Provenance())


def _layout(streams: list["_StageStream"]) -> list[StageMaps]:
    """The stages that every process has found, without images: a process that had none learns them from the others."""
    first, *others = filter(None, all_gather([stream.empty for stream in streams]))
    if any([stage.layers for stage in first] != [stage.layers for stage in other] for other in others):
        raise AnalysisInputError("model", "the network ran other layers in one process than in another")
    return first


@dataclass(frozen=True)
class _StageStream:
    """A stage while images stream through: its kind and layers, its statistics and the first images' maps.

    The examples are kept batch by batch, so that those of several processes can be put in order.
    """

    empty: StageMaps
    statistics: PearsonBetweenLayers
    examples: list[Tensor]

    @classmethod
    def start(cls, stage: StageMaps) -> "_StageStream":
        empty = replace(stage, maps=stage.maps.new_empty((0, *stage.maps.shape[1:]), device="cpu"))
        return cls(empty, PearsonBetweenLayers(len(stage.layers)), [])

    def add(self, stage: StageMaps) -> None:
        self.statistics.update(stage.maps, stage.made_in)
        missing = EXAMPLES - sum(map(len, self.examples))
        if missing > 0:
            self.examples.append(stage.maps[:missing].float().cpu().clone())

    def result(self, index: int) -> StageCorrelation:
        in_turn = chain.from_iterable(zip_longest(*all_gather(self.examples)))  # as processes take the batches in turn
        examples = torch.cat([maps for maps in in_turn if maps is not None])[:EXAMPLES]
        return StageCorrelation(
            stage=index,
            kind=self.empty.kind,
            layers=self.empty.layers,
            channels=self.empty.maps.shape[2],
            examples=examples.numpy(),
            **self.statistics.compute(),
        )


def _result(streams: list[_StageStream], images: int, provenance: Provenance) -> CorrelationResult:
    stages = tuple(stream.result(index) for index, stream in enumerate(streams, 1))
    weighted = [(stage.mean_r, stage.pairs - stage.undefined) for stage in stages if stage.mean_r is not None]
    count = sum(weight for _, weight in weighted)
    mean = sum(r * weight for r, weight in weighted) / count if count else None
    return CorrelationResult(stages, images, mean, provenance)


def _median(histogram: np.ndarray) -> float:
    """The median of values in equal bins over [-1, 1], each value taken to be at its bin's centre."""
    count = int(histogram.sum())
    middle = np.searchsorted(histogram.cumsum(), [(count - 1) // 2, count // 2], side="right")
    return float((middle.mean() + 0.5) * 2 / len(histogram) - 1)


def _row(stage: StageCorrelation) -> tuple[str, ...]:
    numbers = (stage.mean_r, stage.std_r, stage.median_r)
    share = "-" if stage.share_above_0_8 is None else f"{stage.share_above_0_8:.1%}"
    name = str(stage.stage) if stage.kind == "channel" else f"{stage.stage} ({stage.kind})"
    counts = (name, str(len(stage.layers)), str(stage.channels))
    return (
        *counts,
        *("-" if n is None else f"{n:.3f}" for n in numbers),
        share,
        str(stage.pairs),
        str(stage.undefined),
    )


def _notes(stage: StageCorrelation, images: int) -> list[str]:
    if len(stage.layers) == 1:
        return [
            f"Stage {stage.stage} has one attention layer ({stage.layers[0][0]}), so there is no pair to correlate."
        ]
    if not stage.undefined:
        return []
    share = stage.undefined / stage.pairs
    reasons = [*_counted(stage, stage.constant, "constant", images), *_counted(stage, stage.not_finite, UNFIT, images)]
    return [
        f"Stage {stage.stage}: {stage.undefined} of {stage.pairs} pairs ({share:.1%}) have no r: {'; '.join(reasons)}."
    ]


def _counted(stage: StageCorrelation, counts: Int64[np.ndarray, "layer"], what: str, images: int) -> list[str]:
    """How often each layer's map was unfit, those alike together."""
    layers: dict[int, list[int]] = {}
    for layer, count in enumerate(counts.tolist(), 1):
        layers.setdefault(count, []).append(layer)
    return [
        f"the map of {_layers(stage, some)} is {what} on {count} of {images} images"
        for count, some in layers.items()
        if count
    ]


def _layers(stage: StageCorrelation, numbers: Sequence[int]) -> str:
    """Layers by number, the first of them by name too."""
    module, call = stage.layers[numbers[0] - 1]
    name = f"{module}, call {call + 1}" if any(call for _, call in stage.layers) else module
    if len(numbers) == 1:
        return f"layer {numbers[0]} ({name})"
    in_a_row = len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1
    listed = f"{numbers[0]} to {numbers[-1]}" if in_a_row else ", ".join(map(str, numbers))
    return f"each of layers {listed} (the first is {name})"
