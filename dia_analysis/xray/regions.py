"""Where does a network look? The share of its heatmaps' evidence that lies in masks, or in parts of the picture."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from dia_analysis.errors import AnalysisInputError
from dia_analysis.results.base import Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.words import quantity
from dia_analysis.statistics.intervals import LEAST, Estimate, Patients, runs_and_patients

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

BORDER = 0.1  # of each side
LUNG_ROWS, LEFT_COLUMNS, RIGHT_COLUMNS = (BORDER, 0.8), (BORDER, 0.4), (0.6, 1 - BORDER)
PRIOR = ("left_field", "right_field", "center", "elsewhere", "border")
MASKS = ("mask", "outside_mask", "border")
SOURCES = {
    "prior": "an approximation: fixed parts of a frontal chest X-ray, not this patient's anatomy",
    "masks": "each image's mask (of the lungs, where the masks given mark these); the border band may overlap it",
}
UNKNOWN = "images, taken as independent (no patient IDs)"
Source = Literal["prior", "masks"]
Subset = Literal["all", "correct", "wrong"]
SUBSETS: tuple[Subset, ...] = ("all", "correct", "wrong")
Regions = Bool[np.ndarray, "#image region height width"]


def border_band(size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """The outer tenth on each side of a picture of this size (height, width), by the pixels' centers."""
    rows, columns = _centers(size)
    return np.asarray(~(_within(rows, BORDER, 1 - BORDER) & _within(columns, BORDER, 1 - BORDER)))


def prior_regions(size: tuple[int, int]) -> Bool[np.ndarray, "1 region height width"]:
    """Where the lungs of a frontal chest X-ray usually are, and what is beside them; in the order of `PRIOR`.

    Each pixel is in one region. Left and right are those of the picture: the patient's right lung is on the left. The
    fields are columns 10 to 40 % and 60 to 90 %, rows 10 to 80 %; between them is the center (spine, heart, great
    vessels), down to 90 %. The heart reaches into the right field; what is below the diaphragm is elsewhere.
    """
    rows, columns = _centers(size)
    border = border_band(size)
    left = _within(rows, *LUNG_ROWS) & _within(columns, *LEFT_COLUMNS)
    right = _within(rows, *LUNG_ROWS) & _within(columns, *RIGHT_COLUMNS)
    center = ~border & _within(columns, LEFT_COLUMNS[1], RIGHT_COLUMNS[0])
    return np.stack([left, right, center, ~(left | right | center | border), border])[None]


def mask_regions(masks: Bool[np.ndarray, "image height width"]) -> Bool[np.ndarray, "image region height width"]:
    """What each picture's mask marks, what is outside it, and the border band; in the order of `MASKS`."""
    border = np.broadcast_to(border_band((masks.shape[1], masks.shape[2])), masks.shape)
    return np.stack([masks, ~masks, border], axis=1)


def region_shares(maps: Float[np.ndarray, "image height width"], regions: Regions) -> Float[np.ndarray, "image region"]:
    """The share of each map's evidence that lies in each region; NaN for a map that is zero everywhere.

    Raises AnalysisInputError for negative values and values that are not finite.
    """
    if not np.isfinite(maps).all() or maps.min(initial=0) < 0:
        raise AnalysisInputError("maps", "evidence must be finite and not negative; cut negative values off first")
    total = maps.sum((1, 2), dtype=np.float64)
    inside = np.stack([(maps * regions[:, r]).sum((1, 2), dtype=np.float64) for r in range(regions.shape[1])], 1)
    return inside / np.where(total > 0, total, np.nan)[:, None]


def region_areas(regions: Regions, images: int) -> Float[np.ndarray, "image region"]:
    """The share of each picture that each region covers: what a uniform map would give."""
    return np.broadcast_to(regions.mean((2, 3)), (images, regions.shape[1]))


@dataclass(frozen=True)
class NetworkShares:
    """What one network's maps give: `shares` (image, region), NaN for a map that is zero everywhere.

    `network` is the same for networks that differ in their training's seed only; `correct` says which images it
    classified rightly, None if that is not known.
    """

    name: str
    network: str
    shares: Float[np.ndarray, "image region"]
    correct: Bool[np.ndarray, "image"] | None
    provenance: Provenance = field(default_factory=Provenance)

    def chosen(self, subset: Subset) -> Bool[np.ndarray, "image"]:
        """Which images belong to a subset and have a map."""
        return np.asarray(self.of(subset) & ~self.empty)

    def of(self, subset: Subset) -> Bool[np.ndarray, "image"]:
        """Which images belong to a subset."""
        everything = np.ones(len(self.shares), dtype=bool)
        if subset == "all" or self.correct is None:
            return everything if subset == "all" else ~everything
        return self.correct if subset == "correct" else ~self.correct

    @property
    def empty(self) -> Bool[np.ndarray, "image"]:
        """Which maps are zero everywhere."""
        return np.asarray(np.isnan(self.shares[:, 0]))


@dataclass(frozen=True)
class Share:
    """The mean share of the evidence in a region, and the mean share of the picture that it covers."""

    share: Estimate
    area: float

    @property
    def ratio(self) -> float:
        """How many times more than a uniform map would put there."""
        return self.share.value / self.area if self.area else np.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not defined is null."""
        area, ratio = (None if np.isnan(v) else v for v in (self.area, self.ratio))
        return {"share": self.share.to_dict(), "area": area, "ratio": ratio}

    def text(self) -> str:
        """For a table."""
        if np.isnan(self.share.value):
            return "no maps"
        interval = f" {self.share.interval()}" if self.share.has_interval else ""
        return f"{self.share.value:.3f}{interval} n={self.share.images} {self.ratio:.2f}x"


@dataclass(frozen=True, repr=False)
class RegionsResult(Result):
    """Where networks look: shares of evidence by region, with intervals over patients and training runs.

    `areas` (image, region) are the shares of a uniform map. `outlines` (region, height, width) says in what share of
    the images a pixel belongs to a region. `left_out` are images that have no mask. `patients` are the images' names
    where patients are not known. Networks of one `network` are taken together, with 95 % intervals as
    `dia_analysis.statistics.intervals.runs_and_patients` gives them.
    """

    file = "regions"
    source: Source
    regions: tuple[str, ...]
    image_names: tuple[str, ...]
    patients: tuple[str, ...]
    areas: Float[np.ndarray, "image region"]
    outlines: Float[np.ndarray, "region height width"]
    members: tuple[NetworkShares, ...]
    layer: str = ""
    method: str = "gradcam"
    left_out: tuple[str, ...] = ()
    seed: int = 0
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        for member in self.members:
            if member.shares.shape != self.areas.shape:
                message = f"{member.name} has shares of shape {member.shares.shape}, the areas {self.areas.shape}"
                raise AnalysisInputError("shares", message)
        if not self.members:
            raise AnalysisInputError("shares", "there is no network; give at least one")

    @property
    def networks(self) -> dict[str, tuple[NetworkShares, ...]]:
        """The runs of each network. A network of one run goes by the run's name."""
        counts = Counter(member.network for member in self.members)
        found: dict[str, tuple[NetworkShares, ...]] = {}
        for member in self.members:
            name = member.network if counts[member.network] > 1 else member.name
            found[name] = (*found.get(name, ()), member)
        return found

    def shares(self, network: str, subset: Subset = "all") -> dict[str, Share]:
        """By region, the mean share of a network's maps in a subset of the images."""
        members = self.networks[network]
        chosen = [member.chosen(subset) for member in members]
        areas = np.array([self.areas[c].mean(0) for c in chosen if c.any()])
        area = areas.mean(0) if len(areas) else np.full(len(self.regions), np.nan)
        shares = np.stack([np.where(c[:, None], m.shares, np.nan) for m, c in zip(members, chosen, strict=True)])
        whose = Patients.named(self.patients)
        return {
            region: Share(runs_and_patients(shares[:, :, r], whose), float(area[r]))
            for r, region in enumerate(self.regions)
        }

    @property
    def patients_known(self) -> bool:
        """Whether it is known which images are of one patient."""
        return self.patients != self.image_names

    def to_dict(self) -> dict[str, Any]:
        """The JSON document dia.regions/1."""
        return {
            "schema": "dia.regions/1",
            "data": self.provenance.data,
            "selection": self.provenance.selection,
            "source": self.source,
            "approximate": self.source == "prior",
            "about": SOURCES[self.source],
            "regions": list(self.regions),
            "images": len(self.image_names),
            "patients": len(set(self.patients)),
            "without_mask": list(self.left_out),
            "layer": self.layer,
            "method": self.method,
            "networks": [self._network(name, members) for name, members in self.networks.items()],
            "seed": self.seed,
            "versions": self.provenance.versions,
        }

    def _network(self, name: str, members: Sequence[NetworkShares]) -> dict[str, Any]:
        checkpoints = [{"name": m.name, "checkpoint_sha256": m.provenance.checkpoint_sha256} for m in members]
        return {"name": name, "checkpoints": checkpoints, **{s: self._subset(name, members, s) for s in SUBSETS}}

    def _subset(self, name: str, members: Sequence[NetworkShares], subset: Subset) -> dict[str, Any]:
        return {
            "maps": sum(int(member.chosen(subset).sum()) for member in members),
            "empty": sum(int((member.of(subset) & member.empty).sum()) for member in members),
            "regions": {region: share.to_dict() for region, share in self.shares(name, subset).items()},
        }

    def datasets(self) -> dict[str, xr.Dataset]:
        """The raw values: shares (checkpoint, image, region), correct (checkpoint, image), areas (image, region).

        `correct` is 1, 0, or -1 where that is not known.
        """
        correct = [np.full(len(m.shares), -1) if m.correct is None else m.correct for m in self.members]
        arrays = xr.Dataset(
            {
                "shares": (("checkpoint", "image", "region"), np.stack([m.shares for m in self.members])),
                "correct": (("checkpoint", "image"), np.stack(correct).astype(np.int8)),
                "areas": (("image", "region"), self.areas),
                "patient": ("image", list(self.patients)),
            },
            coords={
                "checkpoint": [m.name for m in self.members],
                "image": list(self.image_names),
                "region": list(self.regions),
            },
        )
        return {self.file: arrays}

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each checkpoint, image and region: share, area, and whether the image is classified rightly."""
        return long_form([({}, self.datasets()[self.file])], "shares", "areas", "correct")

    def summary(self) -> str:
        """A table per network, and what was left out."""
        images = quantity(len(self.image_names), "image")
        whose = f" of {quantity(len(set(self.patients)), 'patient')}" if self.patients_known else ""
        head = (
            f"Where the evidence of {images}{whose} lies, at {self.layer or 'the layer explained'}: mean share, 95 % "
            "interval, the number of maps, and how many times the share of a uniform map (area)."
        )
        parts = [f"{head}\nRegions: {SOURCES[self.source]}."]
        parts += [self._table(name, members) for name, members in self.networks.items()]
        return "\n\n".join([*parts, *self.notes()])

    def _table(self, name: str, members: Sequence[NetworkShares]) -> str:
        subsets = SUBSETS if any(m.correct is not None for m in members) else SUBSETS[:1]
        counts = {s: sum(int(m.chosen(s).sum()) for m in members) for s in subsets}
        runs = f", {len(members)} runs" if len(members) > 1 else ""
        columns = [self.shares(name, subset) for subset in subsets]
        heads = [f"{s} ({quantity(counts[s], 'map')})" for s in subsets]
        cells = [[column[region].text() for region in self.regions] for column in columns]
        widths = [max(map(len, [head, *column])) for head, column in zip(heads, cells, strict=True)]
        lines = [f"{name}{runs}", f"  {'':<14} {'area':<6} {_row(heads, widths)}"]
        for number, region in enumerate(self.regions):
            row = _row([column[number] for column in cells], widths)
            lines.append(f"  {region.replace('_', ' '):<14} {columns[0][region].area:<6.3f} {row}")
        return "\n".join(lines)

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        notes = [
            f"{member.name}: {member.empty.sum()} of {member.empty.size} maps are zero everywhere and left out."
            for member in self.members
            if member.empty.any()
        ]
        if self.left_out:
            some = ", ".join(self.left_out[:3]) + (", ..." if len(self.left_out) > 3 else "")
            verb = "has no mask and is" if len(self.left_out) == 1 else "have no mask and are"
            notes.append(f"{quantity(len(self.left_out), 'image')} {verb} left out ({some}).")
        return [*notes, *self._about_intervals()]

    def _about_intervals(self) -> list[str]:
        units = "patients" if self.patients_known or self.source == "prior" else "images"
        whose = "patients" if self.patients_known else UNKNOWN if units == "patients" else units
        runs = max(map(len, self.networks.values()))
        over = (
            f"other runs and other {whose}" if runs > 2 else f"the same {'run' if runs == 1 else 'runs'}, other {whose}"
        )
        found = [s.share for name in self.networks for subset in SUBSETS for s in self.shares(name, subset).values()]
        few = any(not each.has_interval and not np.isnan(each.value) for each in found)
        without = f"A number without an interval is over fewer than {LEAST} {units} (too few for one), or never varies."
        return [f"Intervals say what to expect of {over}.", *([without] if few else [])]

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The shares of all images."""
        return [self.draw]

    def draw(self, ax: "Axes", subset: Subset = "all") -> None:
        """Draw each network's shares by region, with intervals, and the shares of a uniform map."""
        names = list(self.networks)
        places = np.arange(len(self.regions))
        for number, name in enumerate(names):
            shares = list(self.shares(name, subset).values())
            values, low, high = (np.array([getattr(s.share, key) for s in shares]) for key in ("value", "low", "high"))
            x = places + (number - (len(names) - 1) / 2) * 0.7 / len(names)
            spread = np.stack([values - low, high - values])
            ax.errorbar(x, values, spread, fmt="o", ms=3, capsize=1.5, lw=0.8, label=name)
            areas = [share.area for share in shares]
            width = 0.7 / len(names) / 2
            label = "uniform map (area)" if number == 0 else "_"
            ax.hlines(areas, x - width, x + width, color="0.5", lw=1.2, label=label)
        ax.set_xticks(places, [region.replace("_", "\n") for region in self.regions])
        ax.set(ylabel="Share of the map's evidence", ylim=(0, None))
        ax.legend()

    def about(self) -> Mapping[str, Any]:
        """What the manifest says: where the result comes from."""
        models = [{"name": m.name, "checkpoint_sha256": m.provenance.checkpoint_sha256} for m in self.members]
        shared = {key: getattr(self.provenance, key) for key in ("data", "selection", "seed", "versions")}
        return {**shared, "models": models}


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _centers(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The pixels' centers from 0 to 1: rows as a column, columns as a row."""
    height, width = size
    return ((np.arange(height) + 0.5) / height)[:, None], ((np.arange(width) + 0.5) / width)[None]


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low) & (values < high)
