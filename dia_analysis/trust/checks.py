"""The checks of one network's maps together: does it pass, and if not, the one line that says so."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr
from torch import Tensor, nn

from dia_analysis.explain.results import GradCAMResult
from dia_analysis.results.base import Result, by_name
from dia_analysis.results.output import file_name
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.words import quantity
from dia_analysis.trust.agreement import AgreementResult, measure_agreement
from dia_analysis.trust.randomization import RandomizationResult, check_randomization
from dia_analysis.trust.road import RoadResult, check_road

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class TrustChecks(Result):
    """The checks of the maps of the network `name`.

    A check fails if it says no; one that is uncertain fails nothing. The limits: a rank correlation of 0.5 or more
    with the intact network's maps when every weight is noise (`RandomizationResult.depends_on_weights`); removing
    what the maps mark lowers the score no more than removing the rest (`RoadResult.better_than_random`).
    """

    file = "trust"
    name: str
    randomization: RandomizationResult
    road: RoadResult

    def failures(self) -> list[str]:
        """What the maps fail, in words."""
        failed = []
        if self.randomization.depends_on_weights is False:
            failed.append("they stay the same when the weights are destroyed")
        if self.road.better_than_random is False:
            failed.append("masking the highlighted pixels hurts no more than masking others")
        return failed

    @property
    def passed(self) -> bool:
        """Whether every check says yes; one that is uncertain leaves it open."""
        return bool(self.randomization.depends_on_weights and self.road.better_than_random)

    def verdict(self) -> str:
        """Passed, failed or uncertain, in a line."""
        if self.passed:
            return "Passed: the maps change when the weights are destroyed, and what they mark matters to the score."
        if failed := self.failures():
            return f"Failed: {'; '.join(failed)}."
        checks = {
            "destroyed weights": self.randomization.depends_on_weights,
            "removed evidence": self.road.better_than_random,
        }
        passed = [name for name, said in checks.items() if said]
        open_ones = " and ".join(name for name, said in checks.items() if said is None)
        return f"Uncertain: {open_ones}.{f' Passed: {passed[0]}.' if passed else ''} More images may decide it."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        checks = {"randomization": self.randomization.to_dict(), "road": self.road.to_dict()}
        return {"name": self.name, **checks, "passed": self.passed, "failures": self.failures()}

    def summary(self) -> str:
        """What came out, in words."""
        return f"{self.randomization.summary()}\n{self.road.summary()}\n{self.verdict()}"

    @property
    def provenance(self) -> Provenance:  # type: ignore[override]
        """Where the maps come from."""
        return self.road.provenance

    def to_dataframe(self) -> "pd.DataFrame":
        """The rows of both checks, with the name of the check."""
        return by_name({check.file: check.to_dataframe() for check in (self.randomization, self.road)}, "check")

    def datasets(self) -> dict[str, xr.Dataset]:
        """The raw values of both checks."""
        return {**self.randomization.datasets(), **self.road.datasets()}

    def panels(self) -> "list[Callable[[Axes], object]]":
        """Both checks side by side."""
        return [self.randomization.draw, self.road.draw]


@dataclass(frozen=True, repr=False)
class TrustReport(Result):
    """The checks of every network's maps on some images, and whether runs of one network agree."""

    file = "trust"
    num_images: int
    checks: tuple[TrustChecks, ...]
    agreements: tuple[AgreementResult, ...] = ()

    @property
    def provenance(self) -> Provenance:  # type: ignore[override]
        """Where the first network's maps come from."""
        return self.checks[0].provenance

    def warnings(self) -> list[str]:
        """A line for each network, or group of runs, that fails."""
        return warnings(self.checks, self.agreements)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        together = [found.to_dict() for found in self.agreements]
        return {
            "images": self.num_images,
            "models": [check.to_dict() for check in self.checks],
            "agreement": together[0] if together else None,
            "agreements": together,
            "warnings": self.warnings(),
        }

    def paragraphs(self) -> list[str]:
        """What came out, in words."""
        parts = [
            f"{check.name}: can its maps be trusted? ({quantity(self.num_images, 'image')})\n{check.summary()}"
            for check in self.checks
        ]
        return [*parts, *(found.summary() for found in self.agreements)]

    def summary(self) -> str:
        """The same, and at the end what fails."""
        return "\n\n".join([*self.paragraphs(), *filter(None, ["\n".join(self.warnings())])])

    def to_dataframe(self) -> "pd.DataFrame":
        """The rows of every network's checks, with its name."""
        return by_name({check.name: check.to_dataframe() for check in self.checks}, "network")

    def datasets(self) -> dict[str, xr.Dataset]:
        """The raw values of every check, with the network's name, and of every group of runs."""
        checks = {f"{k}-{file_name(check.name)}": a for check in self.checks for k, a in check.datasets().items()}
        runs = [found.datasets()[found.file] for found in self.agreements]
        return checks | {f"agreement-{n}" if n > 1 else "agreement": arrays for n, arrays in enumerate(runs, 1)}

    def panels(self) -> "list[Callable[[Axes], object]]":
        """Both checks of every network."""
        return [panel for check in self.checks for panel in check.panels()]


def warnings(checks: Sequence[TrustChecks], agreements: Sequence[AgreementResult]) -> list[str]:
    """A line for each network whose maps fail a check, and for each group of runs whose maps do not agree."""
    lines = [
        f"warning: do not rely on the maps of {check.name}: {'; '.join(failed)}."
        for check in checks
        if (failed := check.failures())
    ]
    for found in agreements:
        if found.agrees is False:
            lines.append(
                f"warning: do not rely on the maps of {', '.join(found.names)}: runs of one network look at different "
                "things."
            )
    return lines


def check_maps(
    model: nn.Module, images: Tensor, result: GradCAMResult, *, seed: int = 0, **options: Any
) -> TrustChecks:
    """Check a network's maps of images; `result` holds them, made with the options of these images and maybe more."""
    given = {**options, "target": result.target[: len(images)], "seed": seed, "provenance": result.provenance}
    return TrustChecks(result.name, check_randomization(model, images, **given), check_road(model, images, **given))


def agreements(results: Sequence[GradCAMResult], networks: Sequence[Hashable]) -> tuple[AgreementResult, ...]:
    """Compare the maps of runs of one network, where there are two or more: those whose `networks` are equal."""
    groups: dict[Any, list[GradCAMResult]] = {}
    for network, result in zip(networks, results, strict=True):
        groups.setdefault((network, result.layer, result.layer_maps.shape, result.size), []).append(result)
    return tuple(measure_agreement(same, provenance=same[0].provenance) for same in groups.values() if len(same) > 1)
