"""The demo's part on chest X-rays: do the networks look at the lungs, and can their maps be trusted?"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import figures
from cli.analyses.regions import Explained, Looked, found, look
from cli.common.images import SelectedImages
from cli.common.inputs import Inputs, open_networks
from cli.common.options import DataOptions, NetworkOptions
from dia_analysis.networks import explain
from dia_analysis.results.output import new_directory
from dia_analysis.results.style import save_figure
from dia_models.data.masks import find_masks, masks_beside, read_mask
from figures.pages.headlines import of_regions

DATA = "chest-xray-sample"
NETWORKS = ["xray-plain", "xray-dia-lstm"]
DRAWN = 4  # images
QUESTION = "Do networks that read chest X-rays look at the lungs?"
PICTURE = "xrays/heatmaps.png"


@dataclass(frozen=True)
class XRays:
    """What two networks look at in twelve X-rays, with the lungs marked in each."""

    everyone: list[Inputs]
    looked: Looked

    @classmethod
    def measure(cls, options: DataOptions) -> "XRays":
        """Explain every image by every network, and check the maps."""
        everyone = open_networks(NetworkOptions(NETWORKS), replace(options, data=DATA))
        return cls(everyone, look(everyone, None, Explained(), trust=True))

    def headline(self) -> str:
        """How much of the evidence lies in the lungs, beside their part of the picture, and what the checks say."""
        result, _, trust = self.looked
        return of_regions(result, trust)

    def write(self, folder: Path) -> None:
        """Write what `regions` writes, and the maps of some images with the lungs outlined."""
        part, shown = found(*self.looked), self.everyone[0].images.first(DRAWN)
        with new_directory(folder / "xrays", part.about) as place:
            part.write(place)
            results = [explain(each.of(shown))[0] for each in self.everyone]
            pictures = next(shown.pictures(self.everyone[0].preprocessing, DRAWN))
            drawn = figures.heatmaps(
                results, pictures, [label or "" for label in shown.labels()], outlines=self._lungs(shown)
            )
            save_figure(drawn, place / Path(PICTURE).stem)

    def _lungs(self, shown: SelectedImages) -> np.ndarray:
        folder = masks_beside(shown.source)
        assert folder is not None
        framing = self.everyone[0].preprocessing.framing
        return np.stack([read_mask(*pair, framing) for pair in find_masks(folder, shown.source, shown.chosen).values()])
