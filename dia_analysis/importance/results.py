"""What `measure_importance` gives: forests' numbers by stage, their triangles, and what they say."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dia_analysis.importance import halves
from dia_analysis.importance.rows import ROWS_ARE, Rows
from dia_analysis.importance.scores import FIRST_FAR, Importance, beyond_two_nearest, if_flat
from dia_analysis.results.base import Concise, Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table
from dia_analysis.results.words import quantity
from dia_analysis.statistics.summary import mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NO_RULE = 0.05  # R² below which nothing is said to be predicted
UNSURE = "#D55E00"  # of the crosses


@dataclass(frozen=True, repr=False)
class StageGini(Concise):
    """One stage. The target in place i of the arrays is layer i + 2, the source in place j is layer j + 1.

    `numbers` holds the raw values by fold and half (see Importance), None for a stage without two layers or without
    rows. `rows` were drawn from `num_images` images, `elements` of each; `left_out` images had values that are not
    finite. `varying` says by layer how many of its elements differ between images. `constant` layers, counted from 1,
    have the same value in all rows. `between_channels` is the share of the layers' variance that lies between the
    channels' means, which says nothing about images and which centred rows are free of; None for whole vectors.
    `explained` is the share of the vectors' variance that their principal components hold; None for pairs. `undefined`
    says why rows by channel say nothing of it; empty where they do.
    """

    stage: int
    kind: str
    layers: tuple[tuple[str, int], ...]
    num_images: int
    elements: int
    rows: int
    left_out: int
    varying: tuple[int, ...]
    constant: tuple[int, ...]
    between_channels: float | None
    explained: float | None
    numbers: Importance | None
    undefined: str = ""

    def importance(self) -> np.ndarray:
        """Scikit-learn's `feature_importances_`, of forests on all rows: (target, source)."""
        return np.full((len(self.layers) - 1,) * 2, np.nan) if self.numbers is None else self.numbers.gini

    def importance_interval(self) -> tuple[np.ndarray, np.ndarray]:
        """The ends of each importance's 95 % interval over samples of so many images: (target, source)."""
        shape = self.importance().shape
        low, high = halves.interval(self.importance(), self._halves(), self.num_images)
        return np.broadcast_to(low, shape).clip(0, 1), np.broadcast_to(high, shape).clip(0, 1)

    def permutation(self) -> np.ndarray:
        """The mean over the folds of the loss in R² when a source's held-out values change places: (target, source)."""
        return self._over_folds("permutation")

    def r2(self, *, null: bool = False) -> np.ndarray:
        """The mean over the folds of R² on held-out images, or with `null` for other images' targets: (target)."""
        return self._over_folds("null_r2" if null else "r2")

    def mean_r2(self, *, null: bool = False) -> float | None:
        """The mean of `r2` over the targets that have one; None if none has."""
        return mean(self.r2(null=null))

    def above_null(self) -> np.ndarray:
        """Which sources' permutation importance is above every source's for other images' targets: (target, source)."""
        square = (len(self.layers) - 1,) * 2
        return np.zeros(square, bool) if self.numbers is None else self.numbers.above_null()

    def far(self) -> np.ndarray:
        """The share of the importance beyond the two nearest layers: (target).

        NaN for layers 2 and 3, which have no such source, and where R² is not above 0: what is divided there is noise.
        """
        return self._predicted(beyond_two_nearest(self.importance()))

    def far_halves(self) -> np.ndarray:
        """The same shares on the halves of the images: (split, half, target)."""
        return self._predicted(beyond_two_nearest(self._halves()))

    def beyond_two_nearest(self) -> float:
        """The mean of `far` over the layers that have it; NaN if none has."""
        return _mean(self.far())

    def beyond_interval(self) -> tuple[float, float] | None:
        """Its 95 % interval over samples of so many images, these layers given; None for fewer than 20 images."""
        kept = np.isfinite(self.far())
        if not kept.any():
            return None
        low, high = halves.interval(self.far()[kept].mean(), self.far_halves()[..., kept].mean(-1), self.num_images)
        return (max(float(low), 0.0), min(float(high), 1.0)) if np.isfinite(low) else None

    def unpredicted(self) -> tuple[int, ...]:
        """The layers from the fourth on, counted from 1, that are left out of this mean, as their R² is not above 0."""
        candidates = range(FIRST_FAR, len(self.layers) + 1)
        return tuple(layer for layer in candidates if np.isnan(self.far()[layer - 2]))

    def beyond_by_permutation(self) -> float:
        """The same mean share of the permutation importance, negative values taken as 0."""
        return _mean(self._predicted(beyond_two_nearest(self.permutation().clip(min=0))))

    def beyond_if_flat(self) -> float:
        """What that share is when all sources are equally important; of all from the fourth on if none counts."""
        flat = if_flat(len(self.layers) - 1)
        return _mean(self._predicted(flat)) if np.isfinite(self.far()).any() else _mean(flat)

    def to_dict(self) -> dict[str, Any]:
        """The stage as the JSON schema dia.gini/1 has it; None where there is no number."""
        low, high = self.importance_interval()
        interval = self.beyond_interval()
        return {
            "stage": self.stage,
            "layers": len(self.layers),
            "importance": _triangle(self.importance()),
            "importance_interval": _triangle(np.stack([low, high], axis=-1)),
            "r2": _plain(self.r2()),
            "null_r2": _plain(self.r2(null=True)),
            "beyond_two_nearest": _number(self.beyond_two_nearest()),
            "beyond_two_nearest_interval": None if interval is None else list(interval),
            "beyond_two_nearest_left_out": list(self.unpredicted()),
            "beyond_two_nearest_permutation": _number(self.beyond_by_permutation()),
            "beyond_two_nearest_if_flat": _number(self.beyond_if_flat()),
            "permutation": _triangle(self.permutation()),
            "above_null": self._judged(),
            "images": self.num_images,
            "elements": self.elements,
            "rows": self.rows,
            "left_out": self.left_out,
            "varying": list(self.varying),
            "constant": list(self.constant),
            "between_channels": self.between_channels,
            "explained": self.explained,
            "undefined": self.undefined or None,
            "kind": self.kind,
            "points": [{"module": module, "call": call} for module, call in self.layers],
        }

    def to_xarray(self) -> xr.Dataset:
        """The raw values with names: gini (target, source), also by half; r2, permutation and their nulls by fold."""
        names = [f"{module}#{call}" for module, call in self.layers]
        by_fold = ("fold", "target", "source")
        dims: dict[str, tuple[str, ...]] = {
            "gini": by_fold[1:],
            "halves": ("split", "half", *by_fold[1:]),
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

    def draw(self, ax: "Axes", highest: float = 1.0) -> None:
        """Draw the triangle: a row for each target, a column for each source; `highest` is where its colors end.

        Layers are numbered from 1 in forward order. A cross marks a source whose permutation importance is not above
        the highest that any source got when the target was another image's. The line parts the two nearest layers from
        those further back, whose share stands above, with how well the forests predict.
        """
        from matplotlib.ticker import MaxNLocator

        last = len(self.layers)
        extent = (0.5, last - 0.5, last + 0.5, 1.5)
        ax.imshow(self.importance(), vmin=0, vmax=highest, cmap="Blues", extent=extent)
        share, r2 = (_drawn(value) for value in (self.beyond_two_nearest(), self.mean_r2()))
        title = f"Stage {self.stage}\nfurther back: {share}\nR² {r2}"
        ax.set(title=title, xlabel="Source layer", ylabel="Target layer", facecolor="0.9")  # gray: there is no source
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        unsure = np.isfinite(self.permutation()) & np.isfinite(self.importance()) & ~self.above_null()
        targets, sources = np.nonzero(unsure)
        ax.plot(sources + 1, targets + 2, "x", color=UNSURE, ms=min(4.0, 30 / last), mew=0.6)
        for target in range(FIRST_FAR, last + 1):
            edge = target - 2.5
            ax.plot([edge, edge], [target - 0.5, target + 0.5], color="0.2", lw=0.8)
            ax.plot([edge - 1, edge], [target - 0.5, target - 0.5], color="0.2", lw=0.8)

    def _judged(self) -> list[list[bool | None]]:
        known, above = np.isfinite(self.permutation()), self.above_null()
        return [
            [bool(above[target, source]) if known[target, source] else None for source in range(target + 1)]
            for target in range(len(above))
        ]

    def _halves(self) -> np.ndarray:
        size = len(self.layers) - 1
        if self.numbers is None or not len(self.numbers.halves):
            return np.full((halves.SPLITS, 2, size, size), np.nan)
        return self.numbers.halves

    def _predicted(self, by_target: np.ndarray) -> np.ndarray:
        return np.where(self.r2() > 0, by_target, np.nan)

    def _over_folds(self, name: str) -> np.ndarray:
        values = None if self.numbers is None else getattr(self.numbers, name)
        if values is None or not len(values):
            return np.full((len(self.layers) - 1,) * (1 if name.endswith("r2") else 2), np.nan)
        mean: np.ndarray = np.mean(values, axis=0)
        return mean


@dataclass(frozen=True, repr=False)
class GiniResult(Result):
    """What `measure_importance` found, with one kind of rows."""

    file = "gini"
    stages: tuple[StageGini, ...]
    num_images: int
    rows: Rows
    provenance: Provenance

    @property
    def diverged(self) -> bool:
        """Whether some stage's maps are finite on no image."""
        return any(stage.left_out and not stage.num_images for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.gini/1."""
        return {
            "schema": "dia.gini/1",
            **self.provenance.to_dict(),
            "images": self.num_images,
            "rows": self.rows,
            "stages": [stage.to_dict() for stage in self.stages],
        }

    def summary(self) -> str:
        """A table of the stages, and a sentence on each thing that has no number or must be known to read one."""
        heads = ("stage", "layers", "rows", "R²", "null R²", "beyond two nearest", "if flat", "left out", "above null")
        table = text_table([heads, *map(_row, self.stages)])
        return "\n".join([f"Rows: {ROWS_ARE[self.rows]}", table, *self.notes()])

    def notes(self) -> list[str]:
        """The sentences."""
        return [note for stage in self.stages for note in _notes(stage, self.rows)]

    def to_dataframe(self) -> "pd.DataFrame":
        """The Gini importance by stage, target layer and source layer, for the sources of each target."""
        stages = [({"stage": stage.stage}, stage.to_xarray()) for stage in self.stages if stage.numbers is not None]
        frame = long_form(stages, "gini").rename(columns={"gini": "importance"})
        return frame.dropna(subset="importance").reset_index(drop=True)

    def datasets(self) -> dict[str, xr.Dataset]:
        """By stage, as `StageGini.to_xarray` has them."""
        return {f"stage{stage.stage}": stage.to_xarray() for stage in self.stages}

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The triangle of each stage that has two layers, all on one scale."""
        stages = [stage for stage in self.stages if stage.numbers is not None]
        highest = max((float(np.nanmax(stage.importance(), initial=0)) for stage in stages), default=0.0) or 1.0
        return [partial(stage.draw, highest=highest) for stage in stages]

    def complete(self, axes: "Sequence[Axes]") -> None:
        """One color bar for all triangles."""
        if axes:
            axes[0].figure.colorbar(axes[0].images[0], ax=list(axes), label="Gini importance")


def share_text(stage: StageGini) -> str:
    """The share beyond the two nearest layers, with its interval."""
    interval = stage.beyond_interval()
    return number_text(stage.beyond_two_nearest()) + ("" if interval is None else " [{:.2f}, {:.2f}]".format(*interval))


def number_text(value: float | None) -> str:
    """Two digits, or a dash."""
    return f"{value:z.2f}" if value is not None and np.isfinite(value) else "-"


def _drawn(value: float | None) -> str:
    text = number_text(value)
    return "–" if text == "-" else text.replace("-", "−")


def left_out_text(stage: StageGini) -> str:
    """How many of the layers that could count towards the share do not."""
    far = max(len(stage.layers) - FIRST_FAR + 1, 0)
    return f"{len(stage.unpredicted())} of {far}" if far else "-"


def stage_name(stage: StageGini) -> str:
    """Its number, and the kind of its maps if they are not of channels."""
    return str(stage.stage) if stage.kind == "channel" else f"{stage.stage} ({stage.kind})"


def above_text(stage: StageGini) -> str:
    """How many sources are above their null."""
    sources = len(stage.layers) * (len(stage.layers) - 1) // 2
    return f"{int(stage.above_null().sum())} of {sources}" if np.isfinite(stage.r2()).any() else "-"


def _row(stage: StageGini) -> tuple[str, ...]:
    return (
        stage_name(stage),
        str(len(stage.layers)),
        str(stage.rows),
        number_text(stage.mean_r2()),
        number_text(stage.mean_r2(null=True)),
        share_text(stage),
        number_text(stage.beyond_if_flat()),
        left_out_text(stage),
        above_text(stage),
    )


def _notes(stage: StageGini, rows: Rows) -> list[str]:
    name, notes = f"Stage {stage.stage}", []
    if stage.left_out and not stage.num_images:
        images = quantity(stage.left_out, "image")
        return [f"{name}: its maps are not finite (NaN or infinite) on {images}, which are all: it has diverged."]
    if stage.left_out:
        notes.append(f"{name}: left out for values that are not finite: {quantity(stage.left_out, 'image')}.")
    if len(stage.layers) == 1:
        notes.append(f"{name} has one attention layer ({stage.layers[0][0]}), so no forest was grown.")
    elif stage.undefined:
        notes.append(f"{name}: rows by channel are undefined: {stage.undefined}; read whole vectors instead.")
    elif stage.numbers is None:
        least = f"at least 2 {'are' if rows == 'raw' else 'images are'} needed"
        notes.append(f"{name} has {quantity(stage.rows, 'row')}, too few for a forest; {least}.")
    else:
        notes += [f"{name}{rest}" for rest in _reservations(stage, rows)]
    return notes


def _reservations(stage: StageGini, rows: Rows) -> list[str]:
    notes = _constants(stage, rows)
    without = np.flatnonzero(np.isnan(stage.importance()[:, 0])) + 2
    if len(without):
        notes.append(
            f": no importance for layers {_listed(without)}: no forest could split, as all is constant there or before."
        )
    if len(stage.layers) == 2:
        notes.append(" has two layers: the one source has importance 1 by construction.")
    if len(stage.layers) < FIRST_FAR:
        notes.append(f" has {len(stage.layers)} layers, none of which has a source beyond its two nearest.")
    if stage.explained is not None:
        notes.append(f": the principal components hold {stage.explained:.0%} of the vectors' variance.")
    if not np.isfinite(stage.r2()).any():
        return [*notes, ": no R², as there are too few images to hold some out, or too few rows."]
    return notes + _predictions(stage, rows)


def _constants(stage: StageGini, rows: Rows) -> list[str]:
    notes = []
    if stage.constant:
        where = "everywhere" if rows == "raw" else "for all images"
        notes.append(
            f": layers whose maps are the same {where}: {_listed(stage.constant)}. As sources they tell nothing."
        )
    some = [f"{i} ({n} of {stage.elements})" for i, n in enumerate(stage.varying, 1) if 0 < n < stage.elements]
    if some and rows == "centred":
        notes.append(
            f": in layers {_listed(some)} only so many channels differ between images; the others are no targets."
        )
    return notes


def _predictions(stage: StageGini, rows: Rows) -> list[str]:
    """What the held-out images say, in words."""
    notes, unpredicted = [], stage.unpredicted()
    weak, between = np.flatnonzero(stage.r2() < NO_RULE) + 2, stage.between_channels or 0.0
    where = (
        "all layers" if len(weak) == len(stage.r2()) else f"{'layer' if len(weak) == 1 else 'layers'} {_listed(weak)}"
    )
    if rows == "centred" and len(weak):
        notes.append(
            f": R² below {NO_RULE} for {where}: no rule common to all channels by which earlier layers tell how these "
            "depend on the image."
        )
    elif rows == "vector" and len(weak):
        notes.append(
            f": R² below {NO_RULE} for {where}: not predicted for other images, from "
            f"{quantity(stage.num_images, 'image')}."
        )
    elif rows == "raw" and between > 0.5:
        notes.append(
            f": {between:.0%} of the variance lies between the channels' means, so these forests mostly recognize the "
            f"channel (R² {number_text(stage.mean_r2(null=True))} for other images' maps); centred rows are free of it."
        )
    if unpredicted:
        word = "layer" if len(unpredicted) == 1 else "layers"
        notes.append(
            f": {word} {_listed(unpredicted)} left out of the share beyond the two nearest, as R² is not above 0"
            f"{'' if np.isfinite(stage.far()).any() else '; none is left'}."
        )
    return notes


def _listed(things: Iterable[object]) -> str:
    return ", ".join(map(str, things))


def _triangle(values: np.ndarray) -> list[list[Any]]:
    return [_plain(row[: target + 1]) for target, row in enumerate(values)]


def _plain(values: np.ndarray) -> list[Any]:
    return [_plain(value) if value.ndim else _number(value) for value in values]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: np.ndarray) -> float:
    found = mean(values)
    return np.nan if found is None else found
