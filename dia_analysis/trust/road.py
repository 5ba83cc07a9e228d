"""Does the score depend on what a heatmap marks? ROAD: Remove And Debias (Rong et al. 2022)"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.gradcam import gradcam
from dia_analysis.explain.targets import Target, as_logits, probabilities
from dia_analysis.explain.upsample import upsample
from dia_analysis.probes.modes import autocast_off, evaluating
from dia_analysis.results.base import Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.words import quantity
from dia_analysis.statistics.summary import error, mean
from dia_analysis.trust.impute import NOISE, impute

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

RANDOM_GRID = (7, 7)  # the coarseness of random maps beside maps from elsewhere
Images = Float[Tensor, "image channel height width"]
Maps = Float[np.ndarray, "image height width"]
Scores = Callable[[Images], Float[np.ndarray, "image"]]


@dataclass(frozen=True, repr=False)
class RoadResult(Result):
    """The class's probability while the image is removed and imputed, most (`morf`) or least relevant first (`lerf`).

    Both (image, step): 0, 1/steps, ... (steps - 1)/steps of the image are removed. `random` (draw, image, step) is the
    same for random maps of the same coarseness. Images whose map is constant are left out: their curves are NaN.
    """

    file = "road"
    morf: Float[np.ndarray, "image step"]
    lerf: Float[np.ndarray, "image step"]
    random: Float[np.ndarray, "draw image step"]
    seed: int
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def left_out(self) -> Bool[np.ndarray, "image"]:
        """Which images have no curves, because their map is constant."""
        return np.asarray(np.isnan(self.morf[:, 0]))

    @property
    def removed(self) -> Float[np.ndarray, "step"]:
        """The share of the image that is removed at each step."""
        return np.linspace(0, 1, self.morf.shape[1], endpoint=False)

    @property
    def morf_gain(self) -> Float[np.ndarray, "image"]:
        """By how much the mean score is lower than when random parts are removed."""
        return np.asarray(removed_mean(self.random).mean(0) - removed_mean(self.morf))

    @property
    def lerf_gain(self) -> Float[np.ndarray, "image"]:
        """By how much the mean score is higher than when random parts are removed."""
        return np.asarray(removed_mean(self.lerf) - removed_mean(self.random).mean(0))

    @property
    def score(self) -> Float[np.ndarray, "image"]:
        """ROAD's combined score, (LeRF - MoRF) / 2 averaged over the removed shares; that of random maps is 0.

        (A random order read backwards is as random: removing the least or the most of it comes to the same.)
        """
        return np.asarray((removed_mean(self.lerf) - removed_mean(self.morf)) / 2)

    @property
    def better_than_random(self) -> bool | None:
        """Whether the score depends on what the maps mark more than on random parts, by the combined score.

        True if its mean is above 0 by two standard errors, false if it is not above 0, and None, which is undecided,
        in between and where no map marks anything.
        """
        score, uncertain = mean(self.score), error(self.score)
        if score is None:
            return None
        if score <= 0:
            return False
        return True if uncertain is not None and score > 2 * uncertain else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means over images and removed shares, with standard errors over images."""
        return {
            "images": int((~self.left_out).sum()),
            "left_out": int(self.left_out.sum()),
            "draws": len(self.random),
            "seed": self.seed,
            "removed": self.removed[1:].tolist(),
            "random": mean(removed_mean(self.random)),
            "morf": mean(removed_mean(self.morf)),
            "morf_gain": mean(self.morf_gain),
            "morf_gain_error": error(self.morf_gain),
            "lerf": mean(removed_mean(self.lerf)),
            "lerf_gain": mean(self.lerf_gain),
            "lerf_gain_error": error(self.lerf_gain),
            "score": mean(self.score),
            "score_error": error(self.score),
            "better_than_random": self.better_than_random,
        }

    def datasets(self) -> dict[str, xr.Dataset]:
        """The raw curves."""
        one = ("image", "removed")
        curves = {"morf": (one, self.morf), "lerf": (one, self.lerf), "random": (("draw", *one), self.random)}
        return {self.file: xr.Dataset(curves, coords={"removed": self.removed})}

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each draw of random maps, image and removed share: the scores `random`, and `morf` and `lerf`."""
        return long_form([({}, self.datasets()[self.file])], "random", "morf", "lerf")

    def summary(self) -> str:
        """What came out, in words."""
        if self.left_out.all():
            return "ROAD: there is no image whose map marks anything."
        found = self.to_dict()
        left = (
            f" Left out, as their map is constant: {quantity(found['left_out'], 'image')}." if found["left_out"] else ""
        )
        return (
            f"ROAD: with the most relevant part removed the mean score is {found['morf']:.2f}, with the least relevant "
            f"{found['lerf']:.2f}, with a random one {found['random']:.2f}.\n"
            f"Combined: {_spread(self.score)} (random maps: 0), above 0 in {(self.score > 0).sum()} of "
            f"{found['images']} images.{left}"
        )

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The picture."""
        return [self.draw]

    def draw(self, ax: "Axes") -> None:
        """Draw the mean curves against the removed share of the image."""
        curves = (
            ("most relevant first (MoRF)", self.morf, "C0", "-"),
            ("least relevant first (LeRF)", self.lerf, "C1", "-"),
            ("random", self.random.mean(0), "0.4", "--"),
        )
        for label, values, color, line in curves:
            ax.plot(self.removed, _curve(values[~self.left_out]), color=color, ls=line, label=label)
        ax.set(xlabel="Share of the image\nremoved and imputed", ylabel="Score of the class", xlim=(0, 1), ylim=(0, 1))
        ax.legend()


def check_road(
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
) -> RoadResult:
    """Does the score fall sooner when the most relevant part is removed than when the least relevant is?

    What is removed is imputed from what is left, with noise (Rong et al. 2022): a blur or a plain color would show what
    was removed, which can itself tell the class.

    Args:
        model: The network; it is left as it was.
        images: Images (image, channel, height, width) as the network expects them.
        maps: The maps to judge (image, height, width), by default those of `gradcam` with the options.
        target: The class to explain, as `gradcam` takes it, as are `layer`, `call` and `method`.
        steps: How many shares of the pixels are removed, 2 or more.
        draws: With how many random orders of pixels the maps' order is compared, 1 or more.
        seed: Of the noise and the random orders.
        provenance: Where the network and the images come from.

    Returns:
        The scores after each share, most relevant first, least relevant first, and in random order.

    Raises:
        AnalysisInputError: As `gradcam`, for maps of another size than the images, and for too few steps or draws.
    """
    if steps < 2 or draws < 1:
        raise AnalysisInputError("steps", f"{steps} steps and {draws} draws given; at least 2 and 1 are needed")
    model = getattr(model, "_orig_mod", model)
    result = gradcam(model, images, target=target, layer=layer, call=call, method=method)
    grid = result.layer_maps.shape[1:] if maps is None else RANDOM_GRID
    judged = result.maps if maps is None else maps
    if judged.shape != (len(images), *images.shape[2:]):
        raise AnalysisInputError("maps", f"{judged.shape} given for images {tuple(images.shape)}")
    marks = np.flatnonzero(np.ptp(judged, axis=(1, 2)) > 0)
    curves = np.full((2 + draws, len(images), steps), np.nan)
    if len(marks):
        wanted, shape = result.target[marks], (grid[0], grid[1])
        curves[:, marks] = _measure(model, images[marks], judged[marks], wanted, shape, steps, draws, seed)
    return RoadResult(curves[0], curves[1], curves[2:], seed, provenance or Provenance())


def _measure(
    model: nn.Module,
    images: Float[Tensor, "image channel height width"],
    maps: Float[np.ndarray, "image height width"],
    targets: np.ndarray,
    grid: tuple[int, int],
    steps: int,
    draws: int,
    seed: int,
) -> Float[np.ndarray, "map image step"]:
    """The curves for the maps, for the same turned round, and for `draws` random maps of `grid` positions."""
    device = next(model.parameters(), torch.empty(0)).device
    images, wanted = images.to(device), torch.from_numpy(targets).to(device)
    random = np.random.default_rng(seed)
    size = (images.shape[2], images.shape[3])
    drawn = [random.random((len(images), *grid), dtype=np.float32) for _ in range(draws)]

    def score(changed: Tensor) -> Float[np.ndarray, "image"]:
        shares = probabilities(as_logits(model(changed.to(images.dtype))))
        return shares.gather(1, wanted[:, None])[:, 0].cpu().numpy()

    with evaluating(model), autocast_off(model), torch.no_grad():
        every = [maps, -maps, *(upsample(one, size) for one in drawn)]
        return np.stack([curve(score, images, one, steps, random) for one in every])


def ranks(maps: Maps, random: np.random.Generator) -> Float[np.ndarray, "image height width"]:
    """Each position's place in the order of falling relevance, from 0 to below 1; equal ones in random order."""
    flat = maps.reshape(len(maps), -1)
    order = np.lexsort((random.random(flat.shape), -flat), axis=1)
    places = np.empty(flat.shape)
    np.put_along_axis(places, order, np.arange(flat.shape[1]) / flat.shape[1], axis=1)
    return places.reshape(maps.shape)


def curve(
    score: Scores, images: Images, maps: Maps, steps: int, random: np.random.Generator
) -> Float[np.ndarray, "image step"]:
    """The scores while 0/steps, 1/steps, ... (steps - 1)/steps of an image, the highest of the map first, are removed
    and imputed from the rest (Rong et al. 2022)."""
    places = torch.from_numpy(ranks(maps, random)).to(images.device)[:, None]
    noise = torch.Generator().manual_seed(int(random.integers(2**63)))
    removed = [impute(images, places < step / steps, NOISE, noise) for step in range(1, steps)]
    return np.stack([score(images), *map(score, removed)], 1)


def removed_mean(curve: Float[np.ndarray, "*shape step"]) -> np.ndarray:
    """The mean score over all steps at which something is removed."""
    return np.asarray(curve[..., 1:].mean(-1))


def _curve(curves: Float[np.ndarray, "image step"]) -> Float[np.ndarray, "step"]:
    """The mean curve; NaN without images."""
    return np.asarray(curves.mean(0)) if len(curves) else np.full(curves.shape[1], np.nan)


def _spread(values: np.ndarray) -> str:
    """The mean with its standard error."""
    uncertain = error(values)
    return f"{mean(values):.3f}" + ("" if uncertain is None else f" ± {uncertain:.3f}")
