"""Several networks' heatmaps of the same images, and whether they can be trusted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import UInt8

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.results import GradCAMResult, side_by_side, stack_arrays, summarize
from dia_analysis.results.base import Result
from dia_analysis.results.output import file_name
from dia_analysis.results.provenance import Provenance
from dia_analysis.trust.checks import TrustReport

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LARGEST_MAPS = 2 * 2**30


@dataclass(frozen=True, repr=False)
class HeatmapComparison(Result):
    """The maps of all networks, the images' classes (None where not known), and the checks if these were made."""

    file = "gradcam"
    results: tuple[GradCAMResult, ...]
    labels: tuple[str | None, ...]
    trust: TrustReport | None = None

    @property
    def provenance(self) -> Provenance:  # type: ignore[override]
        """Where the first network and the images come from."""
        return self.results[0].provenance

    def to_dict(self) -> dict[str, Any]:
        """The document dia.gradcam/1, with the images' labels and the checks besides."""
        document = side_by_side(self.results)
        for image, label in zip(document["images"], self.labels, strict=True):
            image["label"] = label
        return document if self.trust is None else {**document, "trust": self.trust.to_dict()}

    def summary(self) -> str:
        """The table of scores and what the checks found."""
        scores = summarize(self.results, self.labels)
        return scores if self.trust is None else f"{scores}\n\n{self.trust.summary()}"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the largest images that a network sees."""
        return max(result.size for result in self.results)

    def captions(self) -> list[str]:
        """The images' file names, each with its class below where that is known."""
        names = [path.rpartition("/")[2] for path in self.results[0].image_names]
        return [f"{name}\n({label})" if label else name for name, label in zip(names, self.labels, strict=True)]

    def write_overlays(
        self, folder: Path, pictures: "Sequence[Iterable[UInt8[np.ndarray, 'image height width 3']]]"
    ) -> None:
        """Write a PNG per image and network into a new folder, all on one color scale.

        `pictures` are the images as each network sees them.
        """
        from PIL import Image

        from dia_analysis.explain.overlay import overlay, shared_peak

        folder.mkdir()
        peak = shared_peak(self.results)
        each = (chain.from_iterable(parts) for parts in pictures)
        for number, seen in enumerate(zip(*each, strict=True)):
            stem = f"{number + 1:03d}-{file_name(Path(self.results[0].image_names[number]).stem)}"
            for result, picture in zip(self.results, seen, strict=True):
                drawn = Image.fromarray(overlay(picture, result.layer_maps[number], peak))
                drawn.save(folder / f"{stem}-{file_name(result.name)}.png")

    def about(self) -> Mapping[str, Any]:
        """Where the networks and the images come from."""
        first = self.provenance.to_dict()
        models = [
            {"name": r.name, "checkpoint_sha256": r.provenance.checkpoint_sha256, "layer": r.layer, "call": r.call}
            for r in self.results
        ]
        return {**{key: first[key] for key in ("data", "selection", "seed", "versions")}, "models": models}

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each image and network: its name, and what `GradCAMResult.to_dataframe` has."""
        import pandas as pd

        return pd.concat([result.to_dataframe() for result in self.results], ignore_index=True)

    def datasets(self) -> dict[str, xr.Dataset]:
        """The maps of all networks, and the raw values of the checks."""
        return {"maps": stack_arrays(self.results), **({} if self.trust is None else self.trust.datasets())}

    def panels(self) -> "Sequence[Callable[[Axes], object]]":
        """The first network's maps."""
        return self.results[0].panels()

    def complete(self, axes: "Sequence[Axes]") -> None:
        """Their color scale."""
        self.results[0].complete(axes)


def check_size(sizes: Sequence[tuple[int, int]], images: int) -> None:
    """Raise AnalysisInputError where the maps of so many images, of each network's size, would take more than 2 GiB."""
    need = 4 * max(height * width for height, width in sizes) * images * len(sizes)
    if need > LARGEST_MAPS:
        raise AnalysisInputError(
            "images",
            f"the maps of {images} images would take {need / 2**30:.1f} GiB; at most 2 are written, so "
            "give fewer, or use dia_analysis.stream_gradcam",
        )
