"""Several networks' heatmaps of the same images, and whether they can be trusted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from dia_analysis.explain.results import GradCAMResult, side_by_side, stack_arrays, summarize
from dia_analysis.results.base import Result
from dia_analysis.results.provenance import Provenance
from dia_analysis.trust.checks import TrustReport

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


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
