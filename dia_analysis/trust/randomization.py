"""Does a heatmap change when the network's weights are destroyed? (Adebayo et al. 2018)"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.gradcam import gradcam
from dia_analysis.explain.results import GradCAMResult
from dia_analysis.explain.rolled import SOURCES
from dia_analysis.explain.targets import Target
from dia_analysis.results.base import Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.statistics.similarity import spearman, ssim
from dia_analysis.statistics.summary import error, mean, missing
from dia_analysis.trust.random_weights import cascade

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

UNCHANGED = 0.5  # a rank correlation with the original map from which on we say that it did not change
VERDICTS = {
    True: "they depend on what the network has learned",
    False: "they hardly depend on what the network has learned and cannot explain it",
    None: "too uncertain to tell whether they depend on what the network has learned",
}
Explain = Callable[[nn.Module, Tensor, np.ndarray], Float[np.ndarray, "image height width"]]


@dataclass(frozen=True, repr=False)
class RandomizationResult(Result):
    """How alike maps stay while weights are destroyed: `spearman` and `ssim` (draw, step, image), NaN without a map.

    At each step all weights from the output down to `modules[step]` are noise, `shares[step]` of all parameters.
    `other_images` is the mean rank correlation of the intact network's maps of different images: what maps have in
    common without being the same.
    """

    file = "randomization"
    modules: tuple[str, ...]
    shares: tuple[float, ...]
    spearman: Float[np.ndarray, "draw step image"]
    ssim: Float[np.ndarray, "draw step image"]
    other_images: float | None
    seed: int
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def final_spearman(self) -> float | None:
        """The mean rank correlation with the original when every weight is noise; None if there are no maps then."""
        return mean(self.spearman[:, -1])

    @property
    def final_error(self) -> float | None:
        """The standard error of `final_spearman` over images, or draws if there is one image; None from one value."""
        last = self.spearman[:, -1]
        if last.shape[1] == 1:
            return error(last)
        means = [mean(draws) for draws in last.T]
        return error(np.array([m for m in means if m is not None]))

    @property
    def depends_on_weights(self) -> bool | None:
        """Whether the map changes when every weight is noise, to two standard errors; None if that is undecided.

        A map that vanishes changes; one that keeps a rank correlation of 0.5 or more with the original does not.
        """
        if self.final_spearman is None:
            return True
        if self.final_error is None or abs(self.final_spearman - UNCHANGED) < 2 * self.final_error:
            return None
        return self.final_spearman < UNCHANGED

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means over draws and images, step by step."""
        steps = [
            {
                "down_to": module,
                "share": share,
                "spearman": mean(rho),
                "ssim": mean(alike),
                "undefined": missing(rho),
            }
            for module, share, rho, alike in zip(
                self.modules, self.shares, self.spearman.swapaxes(0, 1), self.ssim.swapaxes(0, 1), strict=True
            )
        ]
        return {
            "draws": len(self.spearman),
            "seed": self.seed,
            "steps": steps,
            "other_images": self.other_images,
            "final_spearman": self.final_spearman,
            "final_error": self.final_error,
            "depends_on_weights": self.depends_on_weights,
        }

    def datasets(self) -> dict[str, xr.Dataset]:
        """The raw values: spearman and ssim (draw, step, image)."""
        dims = ("draw", "step", "image")
        arrays = xr.Dataset(
            {"spearman": (dims, self.spearman), "ssim": (dims, self.ssim), "share": ("step", list(self.shares))},
            coords={"step": list(self.modules)},
        )
        return {self.file: arrays}

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each draw, step and image: spearman and ssim."""
        return long_form([({}, self.datasets()[self.file])], "spearman", "ssim")

    def summary(self) -> str:
        """What came out, in words."""
        spread = "" if self.final_error is None else f" ± {self.final_error:.2f}"
        alike = (
            "no map is left"
            if self.final_spearman is None
            else f"maps keep a rank correlation of {self.final_spearman:.2f}{spread}"
        )
        context = "" if self.other_images is None else f" (maps of different images: {self.other_images:.2f})"
        last = self.spearman[:, -1]
        lost = f"; {missing(last)} of {last.size} vanish" if missing(last) and self.final_spearman is not None else ""
        verdict = VERDICTS[self.depends_on_weights]
        return f"Randomization: with every weight replaced by noise, {alike}{context}{lost}: {verdict}."

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The picture."""
        return [self.draw]

    def draw(self, ax: "Axes") -> None:
        """Draw the similarity to the original map, step by step."""
        for label, values in (("rank correlation", self.spearman), ("SSIM", self.ssim)):
            means = [mean(step) for step in values.swapaxes(0, 1)]
            ax.plot([1.0, *(np.nan if m is None else m for m in means)], "o-", ms=2.5, label=label)
        if self.other_images is not None:
            ax.axhline(self.other_images, color="0.4", lw=0.8, ls="--", label="rank correlation, other images")
        ax.set(xlabel=f"Weights destroyed: 0 none,\n1 the last module, {len(self.modules)} all")
        ax.set_xticks(range(len(self.modules) + 1))
        ax.set(ylabel="Similarity to the intact map", ylim=(None, 1.05))
        ax.legend()


def check_randomization(
    model: nn.Module,
    images: Float[Tensor, "image channel height width"],
    *,
    target: Target | None = None,
    layer: str | None = None,
    call: int | None = None,
    method: str = "gradcam",
    explain: Explain | None = None,
    steps: int = 8,
    draws: int = 3,
    seed: int = 0,
    provenance: Provenance | None = None,
) -> RandomizationResult:
    """Does the map change when the weights are destroyed? Cascading randomization (Adebayo et al. 2018).

    From the classifier down parameters become noise of the same mean and spread; each time the maps of the same classes
    are compared with the intact network's.

    Args:
        model: The network; it is left as it was.
        images: Images (image, channel, height, width) as the network expects them.
        target: The class to explain, as `gradcam` takes it, as are `layer`, `call` and `method`.
        explain: Another way to make maps: `explain(model, images, targets)` gives (image, height, width).
        steps: In how many steps the weights are destroyed, 2 or more.
        draws: In how many random ways, 1 or more.
        seed: Of the noise.
        provenance: Where the network and the images come from.

    Returns:
        Rank correlations with the intact network's maps, by image, step and draw.

    Raises:
        AnalysisInputError: As `gradcam`, and for too few steps or draws.
    """
    if steps < 2 or draws < 1:
        raise AnalysisInputError("steps", f"{steps} steps and {draws} draws given; at least 2 and 1 are needed")
    model = getattr(model, "_orig_mod", model)
    original = gradcam(model, images, target=target, layer=layer, call=call, method=method)
    explain = explain or _by_gradcam(original)
    intact = explain(model, images, original.target)
    modules, shares, rho, alike = [], [], [], []
    for draw in range(draws):
        generator = torch.Generator().manual_seed(seed + draw)
        for step in cascade(model, images[:1], steps, generator):
            maps = explain(step.model, images, original.target)
            rho.append(spearman(intact, maps))
            alike.append(ssim(intact, maps))
            modules.append(step.module)
            shares.append(step.share)
    shape = (draws, -1, len(images))
    return RandomizationResult(
        modules=tuple(modules[: len(modules) // draws]),
        shares=tuple(shares[: len(shares) // draws]),
        spearman=np.reshape(rho, shape),
        ssim=np.reshape(alike, shape),
        other_images=mean(spearman(intact, np.roll(intact, 1, 0))) if len(images) > 1 else None,
        seed=seed,
        provenance=provenance or Provenance(),
    )


def _by_gradcam(result: GradCAMResult) -> Explain:
    def explain(model: nn.Module, images: Tensor, targets: np.ndarray) -> Float[np.ndarray, "image height width"]:
        at_layer = result.method not in SOURCES
        options = {"layer": result.layer, "call": result.call} if at_layer else {}
        options["method"] = result.method
        return gradcam(model, images, target=targets, **options).maps  # type: ignore[arg-type]

    return explain
