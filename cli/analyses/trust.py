"""Whether the heatmaps of checkpoints can be trusted: the checks that --trust asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import figures
from cli.common.inputs import Inputs
from cli.common.naming import file_name
from dia_analysis import (
    AgreementResult,
    GradCAMResult,
    TrustChecks,
    gradcam,
)
from dia_analysis.results.words import quantity
from dia_analysis.trust.checks import agreements, check_maps, warnings

IMAGES = 16


@dataclass(frozen=True)
class Trust:
    """The checks of every network's maps on some `images`, and whether runs of one network agree."""

    images: int
    checks: tuple[TrustChecks, ...]
    agreements: tuple[AgreementResult, ...]

    def warnings(self) -> list[str]:
        """A line for each network, or group of runs, that fails."""
        return warnings(self.checks, self.agreements)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        together = [found.to_dict() for found in self.agreements]
        return {
            "images": self.images,
            "models": [check.to_dict() for check in self.checks],
            "agreement": together[0] if together else None,
            "agreements": together,
            "warnings": self.warnings(),
        }

    def paragraphs(self) -> list[str]:
        """What came out, in words."""
        parts = [
            f"{check.name}: can its maps be trusted? ({quantity(self.images, 'image')})\n{check.summary()}"
            for check in self.checks
        ]
        return [*parts, *(found.summary() for found in self.agreements)]

    def text(self) -> str:
        """The same, and at the end what fails."""
        return "\n\n".join([*self.paragraphs(), *filter(None, ["\n".join(self.warnings())])])

    def write(self, folder: Path) -> None:
        """Write the figures and the raw values."""
        for check in self.checks:
            name = file_name(check.name)
            figures.save_figure(figures.trust_checks(check.randomization, check.road), folder / f"trust-{name}")
            check.randomization.to_xarray().to_netcdf(folder / f"randomization-{name}.nc", engine="scipy")
            check.road.to_xarray().to_netcdf(folder / f"road-{name}.nc", engine="scipy")
        for number, found in enumerate(self.agreements):
            end = f"-{number + 1}" if number else ""
            found.to_xarray().to_netcdf(folder / f"agreement{end}.nc", engine="scipy")


def check_images(
    inputs: Inputs, readable: Sequence[int], result: GradCAMResult, options: Mapping[str, Any]
) -> TrustChecks:
    """Check a network's maps, made with the options, of the first readable images, for which `result` holds them."""
    batch = torch.cat(list(inputs.on(list(readable[:IMAGES])).batches(f"{result.name}: trust")))
    return check_maps(inputs.model, batch, result, seed=inputs.images.seed, **options)


def check_some(everyone: Sequence[Inputs], readable: Sequence[int], options: Mapping[str, Any]) -> Trust:
    """Explain the first readable images with every network, and check the maps."""
    results, checks = [], []
    for inputs in everyone:
        batches = inputs.on(list(readable[:IMAGES])).batches(inputs.name)
        results.append(
            gradcam(inputs.model, batches, model_name=inputs.name, provenance=inputs.provenance(), **options)
        )
        checks.append(check_images(inputs, readable, results[-1], options))
    runs = agreements(results, [each.architecture for each in everyone])
    return Trust(len(results[0].image_names), tuple(checks), runs)
