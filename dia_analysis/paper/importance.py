"""Importance in several networks side by side, beside what the paper says of it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xarray as xr

from dia_analysis.importance.readings import GiniReadings
from dia_analysis.importance.results import share_text
from dia_analysis.paper.findings import Attention, Finding, gini_finding
from dia_analysis.results.base import Result, by_name
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table
from dia_analysis.results.words import quantity

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class ImportanceComparison(Result):
    """Networks by name; `attention` says what each has, and `unknown` which are not known to be trained."""

    file = "gini"
    networks: Mapping[str, GiniReadings]
    attention: Mapping[str, Attention] = field(default_factory=dict)
    unknown: Collection[str] = ()

    @property
    def provenance(self) -> Provenance:  # type: ignore[override]
        """Where the first network and the images come from."""
        return next(iter(self.networks.values())).provenance

    def finding(self) -> Finding:
        """What came out, beside what the paper says."""
        return gini_finding(self.networks, self.attention, self.unknown)

    def summary(self) -> str:
        """The tables, side by side where there are several, and the finding."""
        parts = [f"{_head(name, readings)}\n\n{readings.summary()}" for name, readings in self.networks.items()]
        beside = [self.side_by_side()] if len(self.networks) > 1 else []
        finding = self.finding()
        return "\n\n".join([*parts, *beside, f"{finding.text}\n{finding.comparison()}"])

    def side_by_side(self) -> str:
        """The share of the importance beyond the two nearest layers, by stage and rows, a column for each network."""
        stages = max(len(readings.first.stages) for readings in self.networks.values())
        kinds = list(next(iter(self.networks.values())).trained)
        rows = [["stage", "rows", *self.networks]]
        for i in range(stages):
            for kind in kinds:
                found = [readings.trained[kind].stages[i : i + 1] for readings in self.networks.values()]
                rows.append([str(i + 1), kind, *(share_text(stage[0]) if stage else "-" for stage in found)])
        return f"Importance beyond the two nearest layers, with its 95 % interval over images\n\n{text_table(rows)}"

    def to_dict(self) -> dict[str, Any]:
        """The document dia.gini/1 of the first network; the others' stand in `compared`."""
        first, *others = (readings.to_dict() for readings in self.networks.values())
        return {**first, "compared": others} if others else first

    def to_dataframe(self) -> "pd.DataFrame":
        """As `GiniReadings.to_dataframe`, by the networks' names."""
        return by_name({name: readings.to_dataframe() for name, readings in self.networks.items()}, "name")

    def datasets(self) -> dict[str, xr.Dataset]:
        """Those of each network, with its number in front where there are several."""
        return {
            f"network{number}-{name}" if len(self.networks) > 1 else name: arrays
            for number, readings in enumerate(self.networks.values(), 1)
            for name, arrays in readings.datasets().items()
        }

    def about(self) -> Mapping[str, Any]:
        """Where each network comes from."""
        return {"networks": [readings.provenance.to_dict() for readings in self.networks.values()]}

    def panels(self) -> "Sequence[Callable[[Axes], object]]":
        """The triangles of the first network."""
        return next(iter(self.networks.values())).panels()

    def complete(self, axes: "Sequence[Axes]") -> None:
        """Their color bar, and the network's name where there are several."""
        name, readings = next(iter(self.networks.items()))
        readings.complete(axes)
        if axes and len(self.networks) > 1:
            axes[0].set_ylabel(f"{name}\n{axes[0].get_ylabel()}")


def _head(name: str, readings: GiniReadings) -> str:
    result = readings.first
    images = quantity(result.num_images, "image")
    return f"{name} on {images} of {result.provenance.data}: Gini importance, rows {result.rows}"
