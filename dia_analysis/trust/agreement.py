"""Do the heatmaps of several training runs agree?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.results import GradCAMResult, check_same_images
from dia_analysis.results.base import Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.statistics.similarity import spearman, ssim
from dia_analysis.statistics.summary import mean, missing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

AGREES = 0.5  # a mean rank correlation from which on we say that runs agree


@dataclass(frozen=True, repr=False)
class AgreementResult(Result):
    """How alike the maps of several networks are: `spearman` and `ssim` (pair, image), NaN without a comparison.

    Two maps are compared where both explain the same class and neither is constant. `other_images` (pair, image) is
    the rank correlation with the other network's map of the next image: what maps have in common anyway.
    """

    file = "agreement"
    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    spearman: Float[np.ndarray, "pair image"]
    ssim: Float[np.ndarray, "pair image"]
    other_images: Float[np.ndarray, "pair image"]
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def matrix(self) -> Float[np.ndarray, "network network"]:
        """The mean rank correlation of each two networks; NaN where none is defined."""
        matrix = np.eye(len(self.names))
        for (a, b), values in zip(self.pairs, self.spearman, strict=True):
            rho = mean(values)
            matrix[a, b] = matrix[b, a] = np.nan if rho is None else rho
        return matrix

    @property
    def agrees(self) -> bool | None:
        """Whether the runs look at the same things; None if no two maps can be compared.

        They do if the mean rank correlation is at least 0.5 and above that of maps of different images.
        """
        rho, other = mean(self.spearman), mean(self.other_images)
        if rho is None:
            return None
        return rho >= AGREES and (other is None or rho > other)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means over images."""
        pairs = [
            {
                "models": [self.names[a], self.names[b]],
                "spearman": mean(rho),
                "ssim": mean(alike),
                "other_images": mean(other),
                "images": int(np.isfinite(rho).sum()),
            }
            for (a, b), rho, alike, other in zip(self.pairs, self.spearman, self.ssim, self.other_images, strict=True)
        ]
        means = {"spearman": mean(self.spearman), "other_images": mean(self.other_images)}
        return {"models": list(self.names), **means, "agrees": self.agrees, "pairs": pairs}

    def datasets(self) -> dict[str, xr.Dataset]:
        """The raw values: spearman, ssim and other_images (pair, image)."""
        dims = ("pair", "image")
        arrays = xr.Dataset(
            {"spearman": (dims, self.spearman), "ssim": (dims, self.ssim), "other_images": (dims, self.other_images)},
            coords={"pair": [f"{self.names[a]} | {self.names[b]}" for a, b in self.pairs]},
        )
        return {self.file: arrays}

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each pair and image: spearman, ssim and other_images."""
        return long_form([({}, self.datasets()[self.file])], "spearman", "ssim", "other_images")

    def summary(self) -> str:
        """What came out, in words."""
        found, absent = self.to_dict(), missing(self.spearman)
        left = (
            f" {absent} of {self.spearman.size} comparisons are left out: another class, or a constant map."
            if absent
            else ""
        )
        if found["spearman"] is None:
            return f"Agreement: there are no two maps of one class to compare.{left}"
        other = "" if found["other_images"] is None else f" (maps of different images: {found['other_images']:.2f})"
        return (
            f"Agreement: the maps of {len(self.names)} networks for the same class have a mean rank correlation of "
            f"{found['spearman']:.2f}{other}.{left}"
        )

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The picture."""
        return [self.draw]

    def draw(self, ax: "Axes") -> None:
        """Draw the matrix of mean rank correlations."""
        image = ax.imshow(self.matrix, vmin=-1, vmax=1, cmap="RdBu_r")
        ticks = range(len(self.names))
        ax.set_xticks(ticks, self.names, rotation=45, ha="right")
        ax.set_yticks(ticks, self.names)
        ax.figure.colorbar(image, ax=ax, label="Rank correlation of the maps")


def measure_agreement(results: Sequence[GradCAMResult], *, provenance: Provenance | None = None) -> AgreementResult:
    """Do several training runs of one architecture look at the same things?

    Args:
        results: What `gradcam` gives for each run on the same images, best with one `target` for all.
        provenance: Where they come from.

    Returns:
        Rank correlations of the runs' maps by image and pair of runs.

    Raises:
        AnalysisInputError: For fewer than two results, different images, layers or sizes of maps.
    """
    check_same_images(results)
    if len(results) < 2:
        raise AnalysisInputError("results", "one result has nothing to agree with; give at least two")
    for result in results[1:]:
        if result.layer_maps.shape != results[0].layer_maps.shape or result.layer != results[0].layer:
            raise AnalysisInputError(
                "results", f"{result.name} was explained at another layer or size than {results[0].name}"
            )
    pairs = tuple(combinations(range(len(results)), 2))
    compared = [_compare(results[a], results[b]) for a, b in pairs]
    rho, alike, other = (np.stack(values) for values in zip(*compared, strict=True))
    return AgreementResult(tuple(r.name for r in results), pairs, rho, alike, other, provenance or Provenance())


def _compare(a: GradCAMResult, b: GradCAMResult) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank correlation, SSIM, and rank correlation with the next image, for each image."""
    same = a.target == b.target
    rho, alike, other = np.full((3, len(a.image_names)), np.nan)
    for i in np.flatnonzero(same):  # one by one: maps at the images' size are large
        mine, theirs = a.take([i]).maps, b.take([i]).maps
        rho[i], alike[i] = spearman(mine, theirs)[0], ssim(mine, theirs)[0]
        if len(a.image_names) > 1:
            other[i] = spearman(mine, b.take([(i + 1) % len(a.image_names)]).maps)[0]
    return rho, alike, other
