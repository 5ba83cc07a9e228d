"""What `measure_correlation` gives: numbers by stage, their matrices, and what they say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int64

from dia_analysis.correlation import words
from dia_analysis.correlation.readings import StageReadings, plain, with_intervals
from dia_analysis.probes.alignment import NO_COMMON_MEANING
from dia_analysis.results.base import Concise, Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table
from dia_analysis.statistics.intervals import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LABELED = 4  # layers up to which the matrix has its numbers in the cells
SAVED_BINS = 2**11
UNFIT = "not finite (NaN or infinite)"


@dataclass(frozen=True, repr=False)
class StageCorrelation(Concise):
    """One stage. The statistics are over all (image, layer pair) values of r; None if there is none.

    `pairs` counts those values, of which `undefined` do not exist because a map was constant or not finite;
    `constant` and `not_finite` count the images on which each layer's map was.
    `matrix` (layer, layer) is the mean over images, NaN where never defined. `std_r` divides by the count.
    `histogram` counts r in equal bins from -1 to 1. `examples` (image, layer, element) are the first images' maps, of
    which `stripes` has more if they are small. `readings` holds the parts of r and all else that takes a second look at
    the maps; None where images could not be shown twice. `aligned` says of which two layers of channel gates the
    channel numbers mean the same (`dia_analysis.probes.alignment`): of others r is undefined. None if not known.
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
    stripes: np.ndarray
    readings: StageReadings | None = None
    aligned: Bool[np.ndarray, "layer layer"] | None = None

    @property
    def comparable(self) -> bool:
        """Whether there are two layers, and channel numbers mean the same in all, as far as that is known."""
        return len(self.layers) > 1 and (self.aligned is None or bool(self.aligned.all()))

    @property
    def has_r(self) -> bool:
        """Whether there are two layers between which r has a meaning."""
        return self.comparable or (self.aligned is not None and bool(np.triu(self.aligned, 1).any()))

    def to_dict(self) -> dict[str, Any]:
        """The stage as the JSON schema dia.correlation/2 has it."""
        return {
            **(self.readings.to_dict() if self.readings else {}),
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
            "aligned": None if self.aligned is None else self.aligned.tolist(),
            "points": [{"module": module, "call": call} for module, call in self.layers],
        }

    def where_aligned(self, aligned: Bool[np.ndarray, "layer layer"] | None) -> "StageCorrelation":
        """The same, without r of layers whose channel numbers have no common meaning.

        Where some are aligned the mean of r over these is left, and nothing else of r in all pairs: the histogram is
        empty. CKA and shares of variance stay.
        """
        if aligned is None or aligned.all():
            return replace(self, aligned=aligned)
        matrix = np.where(aligned, self.matrix, np.nan)
        left = matrix[np.triu(aligned, 1)]
        mean = float(np.nanmean(left)) if np.isfinite(left).any() else None
        readings = self.readings and self.readings.of_unaligned()
        return replace(
            self,
            aligned=aligned,
            matrix=matrix,
            mean_r=mean,
            std_r=None,
            median_r=None,
            share_above_0_8=None,
            histogram=np.zeros_like(self.histogram),
            readings=readings,
        )

    def to_xarray(self) -> xr.Dataset:
        """The arrays with names: matrix (layer, other), histogram (r), examples (image, layer, element).

        Of the readings: each matrix by its name, mean_map, channel_std and logit_std (layer, element).
        """
        edges = np.linspace(-1, 1, SAVED_BINS + 1)
        counts = self.histogram.reshape(SAVED_BINS, -1).sum(1).astype(np.float64)
        names = [f"{module}#{call}" for module, call in self.layers]
        return xr.Dataset(
            {
                "matrix": (("layer", "other"), self.matrix),
                "histogram": ("r", counts),
                "examples": (("image", "layer", "element"), self.examples),
                "call": ("layer", [call for _, call in self.layers]),
                **self._readings(),
            },
            coords={"layer": names, "other": names, "r": (edges[:-1] + edges[1:]) / 2},
            attrs={"stage": self.stage, "kind": self.kind},
        )

    def _readings(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        if self.readings is None:
            return {}
        matrices = {name: (("layer", "other"), matrix) for name, matrix in self.readings.matrices.items()}
        arrays = {name: getattr(self.readings, name) for name in ("mean_map", "channel_std", "logit_std")}
        by_element = {name: values for name, values in arrays.items() if values is not None}
        return matrices | {name: (("layer", "element"), values) for name, values in by_element.items()}

    def draw(self, ax: "Axes") -> None:
        """Draw the matrix, with its numbers if it is small; layers are numbered from 1 in forward order."""
        from matplotlib.ticker import MaxNLocator

        edge = len(self.layers) + 0.5
        ax.imshow(self.matrix, vmin=-1, vmax=1, cmap="RdBu_r", extent=(0.5, edge, edge, 0.5))
        ax.set(title=f"Stage {self.stage}\nmean r = {r_text(self.mean_r)}", xlabel="Layer", ylabel="Layer")
        ax.spines[["top", "right"]].set_visible(True)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        for (row, column), r in np.ndenumerate(self.matrix) if len(self.layers) <= LABELED else ():
            color = "white" if abs(r) > 0.6 else "black"
            ax.text(column + 1, row + 1, r_text(r), ha="center", va="center", fontsize=6, color=color)


@dataclass(frozen=True, repr=False)
class NetworkAlignment(Concise):
    """CKA of every two layers of a network, whatever their widths: `stages` is the number of each layer's stage."""

    layers: tuple[tuple[str, int], ...]
    stages: tuple[int, ...]
    matrix: Float[np.ndarray, "layer layer"]
    without_gain: Float[np.ndarray, "layer layer"]

    def to_dict(self) -> dict[str, Any]:
        """As dia.correlation/2 has it."""
        return {
            "points": [{"module": module, "call": call} for module, call in self.layers],
            "stages": list(self.stages),
            "matrix": [plain(row) for row in self.matrix],
            "matrix_without_gain": [plain(row) for row in self.without_gain],
        }


@dataclass(frozen=True, repr=False)
class Controls(Concise):
    """By the number of a stage of gates, the correlation of what its gates see (pooled features that they multiply),
    and of what its blocks put out, pooled. A stage is missing where no modules of their own put these out.
    """

    inputs: Mapping[int, StageCorrelation]
    outputs: Mapping[int, StageCorrelation]


@dataclass(frozen=True, repr=False)
class CorrelationResult(Result):
    """What `measure_correlation` found. `mean_r` is over all defined (image, layer pair) values of all stages.

    `numbers` are those of `StageReadings.numbers` for all stages together: means over pairs of layers, and of the
    shares of variance over layers. `alignment` is CKA between the layers of all stages, None where there is one stage.
    `controls` are None where they were not asked for.
    """

    file = "correlation"
    stages: tuple[StageCorrelation, ...]
    num_images: int
    mean_r: float | None
    provenance: Provenance
    numbers: Mapping[str, Estimate] = field(default_factory=dict)
    alignment: NetworkAlignment | None = None
    controls: Controls | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.correlation/2."""
        return {
            "schema": "dia.correlation/2",
            **self.provenance.to_dict(),
            "images": self.num_images,
            **with_intervals(self.numbers),
            "mean_r": self.mean_r,
            "stages": [stage.to_dict() for stage in self.stages],
            "cka_of_all_layers": self.alignment and self.alignment.to_dict(),
        }

    def summary(self) -> str:
        """A table of the stages, one of the parts of r, and a sentence on each stage that has no number."""
        heads = ("stage", "layers", "channels", "mean r", "std", "median", "r > 0.8", "pairs", "undefined")
        table = text_table([heads, *map(_row, self.stages)])
        notes = [note for stage in self.stages for note in _notes(stage, self.num_images)]
        return "\n".join([table, *notes, *words.tables(self)])

    def to_dataframe(self) -> "pd.DataFrame":
        """The mean r over the images by stage, layer and other layer."""
        frame = long_form([({"stage": stage.stage}, stage.to_xarray()) for stage in self.stages], "matrix")
        return frame.rename(columns={"matrix": "r"})

    def datasets(self) -> dict[str, xr.Dataset]:
        """By stage: matrix, histogram and examples, as `StageCorrelation.to_xarray` has them."""
        return {f"stage{stage.stage}": stage.to_xarray() for stage in self.stages}

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The matrix of each stage that has two layers between which r has a meaning."""
        return [stage.draw for stage in self.stages if stage.has_r]

    def complete(self, axes: "Sequence[Axes]") -> None:
        """One color bar for all matrices."""
        if axes:
            axes[0].figure.colorbar(axes[0].images[0], ax=list(axes), label="Pearson r")


def r_text(r: float | None) -> str:
    """Two digits, or a dash."""
    return "–" if r is None or np.isnan(r) else f"{r:.2f}"


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
    return [*_not_aligned(stage), *_undefined(stage, images)]


def _not_aligned(stage: StageCorrelation) -> list[str]:
    """That r means nothing where channel numbers do not mean the same."""
    if stage.aligned is None:
        return []
    pairs = len(stage.layers) * (len(stage.layers) - 1) // 2
    apart = pairs - int(np.triu(stage.aligned, 1).sum())
    if not apart:
        return []
    which = "its layers" if apart == pairs else f"{apart} of {pairs} pairs of its layers"
    return [
        f"Stage {stage.stage}: r of {which} is undefined: {NO_COMMON_MEANING} (the gates lie inside blocks, before "
        "their channels are mixed); read CKA instead."
    ]


def _undefined(stage: StageCorrelation, images: int) -> list[str]:
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
