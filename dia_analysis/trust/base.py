"""Can a heatmap be believed? What the results of the three checks have in common.

`check_randomization` destroys weights, `check_road` removes evidence, `measure_agreement` compares runs.
"""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from dia_analysis.results.display import Displayed
from dia_analysis.results.output import new_directory, write_json
from dia_analysis.results.provenance import Provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class TrustResult(Displayed):
    """What the results of all checks can do."""

    file: ClassVar[str]
    provenance: Provenance

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""

    @abstractmethod
    def to_xarray(self) -> xr.Dataset:
        """The raw values with names."""

    @abstractmethod
    def summary(self) -> str:
        """What came out, in words."""

    @abstractmethod
    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw it."""

    def save(self, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Write the numbers (JSON), the raw values (NetCDF) and a manifest into a new directory.

        Raises AnalysisInputError if the directory exists and `overwrite` is false, or if it holds no results.
        """
        path = Path(directory)
        with new_directory(path, self.provenance.to_dict(), overwrite=overwrite) as folder:
            write_json(folder / f"{self.file}.json", self.to_dict())
            self.to_xarray().to_netcdf(folder / f"{self.file}.nc", engine="scipy")
        return path


def mean(values: np.ndarray) -> float | None:
    """The mean of the finite values; None if there are none."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else None


def missing(values: np.ndarray) -> int:
    """How many values are not finite."""
    return int((~np.isfinite(values)).sum())


def error(values: np.ndarray) -> float | None:
    """The standard error of the mean of the finite values; None for fewer than two."""
    defined = values[np.isfinite(values)]
    return float(defined.std(ddof=1) / np.sqrt(defined.size)) if defined.size > 1 else None
