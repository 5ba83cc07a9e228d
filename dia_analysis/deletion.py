"""Does the score depend on what a heatmap marks? (Petsiuk et al. 2018)"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dia_analysis.cam_result import upsample
from dia_analysis.display import axes
from dia_analysis.errors import AnalysisInputError
from dia_analysis.gradcam import gradcam
from dia_analysis.heads import Target, as_logits, probabilities
from dia_analysis.modes import evaluating
from dia_analysis.perturb import area, curves
from dia_analysis.provenance import Provenance
from dia_analysis.trust import TrustResult, error, mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RANDOM_GRID = (7, 7)  # the coarseness of random maps beside maps from elsewhere


@dataclass(frozen=True)
class DeletionResult(TrustResult):
    """The class's probability while what the map marks is removed (`deletion`) or brought back (`insertion`).

    Both (image, step), from nothing to all; `random_deletion` and `random_insertion` (draw, image, step) are the same
    for random maps of the same coarseness. Images whose map is constant are left out: their curves are NaN.
    """

    file = "deletion"
    deletion: Float[np.ndarray, "image step"]
    insertion: Float[np.ndarray, "image step"]
    random_deletion: Float[np.ndarray, "draw image step"]
    random_insertion: Float[np.ndarray, "draw image step"]
    seed: int
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def left_out(self) -> Bool[np.ndarray, "image"]:
        """Which images have no curves, because their map is constant."""
        return np.asarray(np.isnan(self.deletion[:, 0]))

    @property
    def deletion_gain(self) -> Float[np.ndarray, "image"]:
        """By how much the mean score along the way is lower than when random parts are removed."""
        return np.asarray(area(self.random_deletion).mean(0) - area(self.deletion))

    @property
    def insertion_gain(self) -> Float[np.ndarray, "image"]:
        """By how much the mean score along the way is higher than when random parts are brought back."""
        return np.asarray(area(self.insertion) - area(self.random_insertion).mean(0))

    @property
    def better_than_random(self) -> bool | None:
        """Whether the score depends on what the maps mark more than on random parts, deletion and insertion together.

        True if the mean of both gains is above 0 by two standard errors, false if it is not above 0, and None, which
        is undecided, in between and where no map marks anything.
        """
        gains = (self.deletion_gain + self.insertion_gain) / 2
        gain, uncertain = mean(gains), error(gains)
        if gain is None:
            return None
        if gain <= 0:
            return False
        return True if uncertain is not None and gain > 2 * uncertain else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means over images, with the gains' standard errors."""
        return {
            "images": int((~self.left_out).sum()),
            "left_out": int(self.left_out.sum()),
            "draws": len(self.random_deletion),
            "seed": self.seed,
            "deletion": mean(area(self.deletion)),
            "random_deletion": mean(area(self.random_deletion)),
            "deletion_gain": mean(self.deletion_gain),
            "deletion_gain_error": error(self.deletion_gain),
            "insertion": mean(area(self.insertion)),
            "random_insertion": mean(area(self.random_insertion)),
            "insertion_gain": mean(self.insertion_gain),
            "insertion_gain_error": error(self.insertion_gain),
            "better_than_random": self.better_than_random,
        }

    def to_xarray(self) -> xr.Dataset:
        """The raw curves."""
        one, many = ("image", "fraction"), ("draw", "image", "fraction")
        return xr.Dataset(
            {
                "deletion": (one, self.deletion),
                "insertion": (one, self.insertion),
                "random_deletion": (many, self.random_deletion),
                "random_insertion": (many, self.random_insertion),
            },
            coords={"fraction": np.linspace(0, 1, self.deletion.shape[1])},
        )

    def summary(self) -> str:
        """What came out, in words."""
        if self.left_out.all():
            return "Deletion and insertion: there is no image whose map marks anything."
        found = self.to_dict()
        left = f" {found['left_out']} images whose map is constant are left out." if found["left_out"] else ""
        return (
            f"Deletion: removing what the map marks leaves a mean score of {found['deletion']:.2f}, removing at random "
            f"{found['random_deletion']:.2f} ({_better(self.deletion_gain)}).\n"
            f"Insertion: bringing it back gives {found['insertion']:.2f}, at random {found['random_insertion']:.2f} "
            f"({_better(self.insertion_gain)}).{left}"
        )

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the mean curves against the share of the image."""
        ax = axes(ax)
        x = np.linspace(0, 1, self.deletion.shape[1])
        pairs = (
            ("deletion", self.deletion, self.random_deletion),
            ("insertion", self.insertion, self.random_insertion),
        )
        for number, (label, curve, random) in enumerate(pairs):
            kept = ~self.left_out
            ax.plot(x, _curve(curve[kept]), color=f"C{number}", label=label)
            ax.plot(x, _curve(random[:, kept].mean(0)), color=f"C{number}", ls="--", label=f"{label}, random")
        ax.set(xlabel="Share of the image,\nmost relevant first", ylabel="Score of the class", ylim=(0, 1))
        ax.legend()
        return ax


def deletion_check(
    model: nn.Module,
    images: Float[Tensor, "image channel height width"],
    *,
    maps: Float[np.ndarray, "map rows columns"] | None = None,
    target: Target | None = None,
    layer: str | None = None,
    call: int | None = None,
    method: str = "gradcam",
    steps: int = 10,
    draws: int = 3,
    seed: int = 0,
    provenance: Provenance | None = None,
) -> DeletionResult:
    """Does the score fall when what the map marks is removed, and rise when it is brought back? (Petsiuk et al. 2018)

    What is removed becomes a blur. `maps` (image, height, width) are the maps to judge, by default those of `gradcam`
    with the options. The network is left as it was. Raises AnalysisInputError as `gradcam` does, and for maps of
    another size than the images.
    """
    if steps < 1 or draws < 1:
        raise AnalysisInputError("steps", f"{steps} steps and {draws} draws given; at least 1 of each is needed")
    model = getattr(model, "_orig_mod", model)
    result = gradcam(model, images, target=target, layer=layer, call=call, method=method)
    grid = result.layer_maps.shape[1:] if maps is None else RANDOM_GRID
    judged = result.maps if maps is None else maps
    if judged.shape != (len(images), *images.shape[2:]):
        raise AnalysisInputError("maps", f"{judged.shape} given for images {tuple(images.shape)}")
    marks = np.flatnonzero(np.ptp(judged, axis=(1, 2)) > 0)
    own = np.full((2, len(images), steps + 1), np.nan)
    drawn = np.full((2, draws, len(images), steps + 1), np.nan)
    if len(marks):
        wanted, shape = result.target[marks], (grid[0], grid[1])
        measured = _measure(model, images[marks], judged[marks], wanted, shape, steps, draws, seed)
        own[:, marks], drawn[:, :, marks] = measured
    return DeletionResult(own[0], own[1], drawn[0], drawn[1], seed, provenance or Provenance())


def _measure(
    model: nn.Module,
    images: Float[Tensor, "image channel height width"],
    maps: Float[np.ndarray, "image height width"],
    targets: np.ndarray,
    grid: tuple[int, int],
    steps: int,
    draws: int,
    seed: int,
) -> tuple[Float[np.ndarray, "2 image step"], Float[np.ndarray, "2 draw image step"]]:
    """The curves (deletion, insertion) for the maps, and for random maps of `grid` positions."""
    device = next(model.parameters(), torch.empty(0)).device
    images, wanted = images.to(device), torch.from_numpy(targets).to(device)
    random = np.random.default_rng(seed)

    def score(changed: Tensor) -> Float[np.ndarray, "image"]:
        shares = probabilities(as_logits(model(changed)))
        return shares.gather(1, wanted[:, None])[:, 0].cpu().numpy()

    with evaluating(model), torch.no_grad():
        own = curves(score, images, maps, steps, random)
        noise = [random.random((len(images), *grid), dtype=np.float32) for _ in range(draws)]
        size = (images.shape[2], images.shape[3])
        return own, np.stack([curves(score, images, upsample(drawn, size), steps, random) for drawn in noise], 1)


def _curve(curves: Float[np.ndarray, "image step"]) -> Float[np.ndarray, "step"]:
    """The mean curve; NaN without images."""
    return np.asarray(curves.mean(0)) if len(curves) else np.full(curves.shape[1], np.nan)


def _better(gains: np.ndarray) -> str:
    defined = gains[np.isfinite(gains)]
    uncertain = error(gains)
    spread = "" if uncertain is None else f" ± {uncertain:.3f}"
    return f"better by {defined.mean():.3f}{spread}, in {(defined > 0).sum()} of {len(defined)} images"
