"""The correlation of several networks side by side, over the seeds of one, and between two."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from dia_analysis.correlation.across import Across
from dia_analysis.correlation.seeds import Seeds
from dia_analysis.paper.untrained import BesideUntrained
from dia_analysis.results.base import Result, by_name
from dia_analysis.results.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class CorrelationComparison(Result):
    """Networks by name, each beside itself before training; `seeds` holds the runs of one network together, `across`
    the likeness between two networks.
    """

    file = "correlation"
    networks: Mapping[str, BesideUntrained]
    seeds: tuple[Seeds, ...] = ()
    across: tuple[Across, ...] = ()

    @property
    def first(self) -> BesideUntrained:
        """The first network."""
        return next(iter(self.networks.values()))

    @property
    def provenance(self) -> Provenance:  # type: ignore[override]
        """Where the first network and the images come from."""
        return self.first.provenance

    def about(self) -> Mapping[str, Any]:
        """Where each network comes from."""
        if len(self.networks) == 1:
            return self.first.about()
        return {"networks": [each.provenance.to_dict() for each in self.networks.values()]}

    def to_dict(self) -> dict[str, Any]:
        """The document dia.correlation/2 of the first network; the others' stand in `compared`."""
        first, *others = (each.to_dict() for each in self.networks.values())
        return {
            **first,
            "compared": others,
            "seeds": [each.to_dict() for each in self.seeds],
            "across": [each.to_dict() for each in self.across],
        }

    def summary(self) -> str:
        """The tables and findings of each network, then those over seeds and between networks."""
        parts = [each.summary() for each in self.networks.values()]
        parts += [each.summary() for each in self.seeds]
        return "\n\n".join([*parts, *(each.summary() for each in self.across)])

    def to_dataframe(self) -> "pd.DataFrame":
        """As `BesideUntrained.to_dataframe`, by the networks' names."""
        return by_name({name: each.to_dataframe() for name, each in self.networks.items()}, "name")

    def datasets(self) -> dict[str, xr.Dataset]:
        """Those of each network, with its number in front of all but the first's."""
        return {
            name if number == 1 else f"network{number}-{name}": arrays
            for number, each in enumerate(self.networks.values(), 1)
            for name, arrays in each.datasets().items()
        }

    def panels(self) -> "Sequence[Callable[[Axes], object]]":
        """The matrices of the first network."""
        return self.first.panels()

    def complete(self, axes: "Sequence[Axes]") -> None:
        """Their color bar."""
        self.first.complete(axes)
