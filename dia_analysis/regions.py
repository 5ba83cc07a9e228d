"""Where does a network look? The share of its heatmaps' evidence that lies in lungs, or in parts of the picture."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from dia_analysis.diagnostics import RESAMPLES, Estimate, estimate, resampled
from dia_analysis.display import Displayed, axes
from dia_analysis.errors import AnalysisInputError
from dia_analysis.output import new_directory, write_json
from dia_analysis.provenance import Provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BORDER = 0.1  # of each side
LUNG_ROWS, LEFT_COLUMNS, RIGHT_COLUMNS = (BORDER, 0.8), (BORDER, 0.4), (0.6, 1 - BORDER)
PRIOR = ("left_field", "right_field", "centre", "elsewhere", "border")
MASKS = ("lungs", "outside_lungs", "border")
SOURCES = {
    "prior": "an approximation: fixed parts of a frontal chest X-ray, not this patient's anatomy",
    "masks": "lung masks; the border band may overlap the lungs",
}
Source = Literal["prior", "masks"]
Subset = Literal["all", "correct", "wrong"]
SUBSETS: tuple[Subset, ...] = ("all", "correct", "wrong")
Regions = Bool[np.ndarray, "#image region height width"]


def border_band(size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """The outer tenth on each side of a picture of this size (height, width), by the pixels' centres."""
    rows, columns = _centres(size)
    return np.asarray(~(_within(rows, BORDER, 1 - BORDER) & _within(columns, BORDER, 1 - BORDER)))


def prior_regions(size: tuple[int, int]) -> Bool[np.ndarray, "1 region height width"]:
    """Where the lungs of a frontal chest X-ray usually are, and what is beside them; in the order of `PRIOR`.

    Each pixel is in one region. Left and right are those of the picture: the patient's right lung is on the left. The
    fields are columns 10 to 40 % and 60 to 90 %, rows 10 to 80 %; between them is the centre (spine, heart, great
    vessels), down to 90 %. The heart reaches into the right field; what is below the diaphragm is elsewhere.
    """
    rows, columns = _centres(size)
    border = border_band(size)
    left = _within(rows, *LUNG_ROWS) & _within(columns, *LEFT_COLUMNS)
    right = _within(rows, *LUNG_ROWS) & _within(columns, *RIGHT_COLUMNS)
    centre = ~border & _within(columns, LEFT_COLUMNS[1], RIGHT_COLUMNS[0])
    return np.stack([left, right, centre, ~(left | right | centre | border), border])[None]


def mask_regions(lungs: Bool[np.ndarray, "image height width"]) -> Bool[np.ndarray, "image region height width"]:
    """The lungs of each picture, what is outside them, and the border band; in the order of `MASKS`."""
    border = np.broadcast_to(border_band((lungs.shape[1], lungs.shape[2])), lungs.shape)
    return np.stack([lungs, ~lungs, border], axis=1)


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
    classified rightly.
    """

    name: str
    network: str
    shares: Float[np.ndarray, "image region"]
    correct: Bool[np.ndarray, "image"]
    provenance: Provenance = field(default_factory=Provenance)

    def chosen(self, subset: Subset) -> Bool[np.ndarray, "image"]:
        """Which images belong to a subset and have a map."""
        return np.asarray(self.of(subset) & ~self.empty)

    def of(self, subset: Subset) -> Bool[np.ndarray, "image"]:
        """Which images belong to a subset."""
        return {"all": np.ones_like(self.correct), "correct": self.correct, "wrong": ~self.correct}[subset]

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
        return "no maps" if np.isnan(self.share.value) else f"{self.share.text()} {self.ratio:.2f}x"


@dataclass(frozen=True)
class RegionsResult(Displayed):
    """Where networks look: shares of evidence by region, with intervals over patients and training runs.

    `areas` (image, region) are the shares of a uniform map. `outlines` (region, height, width) says in what share of
    the images a pixel belongs to a region. `left_out` are images that have no mask. Networks of one `network` are
    taken together: 95 % intervals come from drawing patients, and of several runs also runs, with replacement.
    """

    source: Source
    regions: tuple[str, ...]
    images: tuple[str, ...]
    patients: tuple[str, ...]
    areas: Float[np.ndarray, "image region"]
    outlines: Float[np.ndarray, "region height width"]
    members: tuple[NetworkShares, ...]
    layer: str = ""
    method: str = "gradcam"
    left_out: tuple[str, ...] = ()
    resamples: int = RESAMPLES
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
        draws = self._draws(members, chosen)
        once = _means(members, chosen, np.ones((1, len(self.images))))
        areas = np.array([self.areas[c].mean(0) for c in chosen if c.any()])
        area = areas.mean(0) if len(areas) else np.full(len(self.regions), np.nan)
        values = [float(v) for v in _mean(once[:, 0])]
        return {
            region: Share(estimate(values[r], draws[:, r]), float(area[r])) for r, region in enumerate(self.regions)
        }

    def _draws(
        self, members: Sequence[NetworkShares], chosen: Sequence[Bool[np.ndarray, "image"]]
    ) -> Float[np.ndarray, "sample region"]:
        means = _means(members, chosen, resampled(self.patients, self.resamples, self.seed))
        random = np.random.default_rng([self.seed, 1])
        runs = random.integers(len(members), size=(len(members), self.resamples))
        return _mean(means[runs, np.arange(self.resamples)])

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
            "images": len(self.images),
            "patients": len(set(self.patients)),
            "without_mask": list(self.left_out),
            "layer": self.layer,
            "method": self.method,
            "networks": [self._network(name, members) for name, members in self.networks.items()],
            "resamples": self.resamples,
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

    def to_xarray(self) -> xr.Dataset:
        """The raw values: shares (checkpoint, image, region), correct (checkpoint, image), areas (image, region)."""
        return xr.Dataset(
            {
                "shares": (("checkpoint", "image", "region"), np.stack([m.shares for m in self.members])),
                "correct": (("checkpoint", "image"), np.stack([m.correct for m in self.members]).astype(np.int8)),
                "areas": (("image", "region"), self.areas),
                "patient": ("image", list(self.patients)),
            },
            coords={
                "checkpoint": [m.name for m in self.members],
                "image": list(self.images),
                "region": list(self.regions),
            },
        )

    def summary(self) -> str:
        """A table per network, and what was left out."""
        head = (
            f"Where the evidence of {len(self.images)} images of {len(set(self.patients))} patients lies: mean share, "
            "95 % interval, and how many times the share of a uniform map (area)."
        )
        parts = [f"{head}\nRegions: {SOURCES[self.source]}."]
        parts += [self._table(name, members) for name, members in self.networks.items()]
        return "\n\n".join([*parts, *self.notes()])

    def _table(self, name: str, members: Sequence[NetworkShares]) -> str:
        counts = {s: sum(int(m.chosen(s).sum()) for m in members) for s in SUBSETS}
        runs = f", {len(members)} runs" if len(members) > 1 else ""
        columns = [self.shares(name, subset) for subset in SUBSETS]
        lines = [f"{name}{runs}", f"  {'':<14} {'area':<6} " + _row(f"{s} ({counts[s]} maps)" for s in SUBSETS)]
        for region in self.regions:
            cells = _row(column[region].text() for column in columns)
            lines.append(f"  {region.replace('_', ' '):<14} {columns[0][region].area:<6.3f} {cells}")
        return "\n".join(lines)

    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        notes = [
            f"{member.name}: {int(member.empty.sum())} of {len(self.images)} maps are zero everywhere and left out."
            for member in self.members
            if member.empty.any()
        ]
        if self.left_out:
            some = ", ".join(self.left_out[:3]) + (", ..." if len(self.left_out) > 3 else "")
            notes.append(f"{len(self.left_out)} images have no mask and are left out ({some}).")
        return notes

    def plot(self, ax: "Axes | None" = None, subset: Subset = "all") -> "Axes":
        """Draw each network's shares by region, with intervals, and the shares of a uniform map."""
        ax = axes(ax)
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
        return ax

    def save(self, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Write regions.json, regions.nc (every image's shares) and a manifest into a new directory.

        Raises AnalysisInputError if the directory exists and `overwrite` is false, or if it holds no results.
        """
        path = Path(directory)
        with new_directory(path, self.about(), overwrite=overwrite) as folder:
            self.write(folder)
        return path

    def write(self, folder: Path) -> None:
        """Write the files of `save` but for the manifest."""
        write_json(folder / "regions.json", self.to_dict())
        self.to_xarray().to_netcdf(folder / "regions.nc", engine="scipy")

    def about(self) -> Mapping[str, Any]:
        """What the manifest says: where the result comes from."""
        models = [{"name": m.name, "checkpoint_sha256": m.provenance.checkpoint_sha256} for m in self.members]
        shared = {key: getattr(self.provenance, key) for key in ("data", "selection", "seed", "versions")}
        return {**shared, "models": models}


def _means(
    members: Sequence[NetworkShares],
    chosen: Sequence[Bool[np.ndarray, "image"]],
    weights: Float[np.ndarray, "sample image"],
) -> Float[np.ndarray, "member sample region"]:
    """Each network's weighted mean over its chosen images; NaN in a sample that has none of them."""
    means = []
    for member, images in zip(members, chosen, strict=True):
        total = weights[:, images].sum(1, keepdims=True)
        means.append(weights[:, images] @ member.shares[images] / np.where(total > 0, total, np.nan))
    return np.stack(means)


def _mean(values: Float[np.ndarray, "member *rest"]) -> Float[np.ndarray, "*rest"]:
    """The mean of what is defined along the first dimension; NaN where nothing is."""
    count = np.isfinite(values).sum(0)
    return np.asarray(np.nansum(values, 0) / np.where(count > 0, count, np.nan))


def _row(cells: Any) -> str:
    return "  ".join(f"{cell:<28}" for cell in cells).rstrip()


def _centres(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The pixels' centres from 0 to 1: rows as a column, columns as a row."""
    height, width = size
    return ((np.arange(height) + 0.5) / height)[:, None], ((np.arange(width) + 0.5) / width)[None]


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low) & (values < high)
