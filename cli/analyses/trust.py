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
    agreement,
    gradcam,
    randomisation_check,
    road_check,
)
from dia_analysis.results.counted import counted
from dia_analysis.trust.checks import warnings

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
            f"{check.name}: can its maps be trusted? ({counted(self.images, 'image')})\n{check.summary()}"
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
            figures.save_figure(figures.trust_checks(check.randomisation, check.road), folder / f"trust-{name}")
            check.randomisation.to_xarray().to_netcdf(folder / f"randomisation-{name}.nc", engine="scipy")
            check.road.to_xarray().to_netcdf(folder / f"road-{name}.nc", engine="scipy")
        for number, found in enumerate(self.agreements):
            end = f"-{number + 1}" if number else ""
            found.to_xarray().to_netcdf(folder / f"agreement{end}.nc", engine="scipy")


def check_maps(
    inputs: Inputs, readable: Sequence[int], result: GradCAMResult, options: Mapping[str, Any]
) -> TrustChecks:
    """Check a network's maps, made with the options, of the first readable images, for which `result` holds them."""
    some = inputs.on(list(readable[:IMAGES]))
    batch = torch.cat(list(some.batches(f"{result.name}: trust")))
    given = {**options, "target": result.target[: len(batch)], "seed": inputs.images.seed}
    return TrustChecks(
        result.name,
        randomisation_check(inputs.model, batch, provenance=result.provenance, **given),
        road_check(inputs.model, batch, provenance=result.provenance, **given),
    )


def check_some(everyone: Sequence[Inputs], readable: Sequence[int], options: Mapping[str, Any]) -> Trust:
    """Explain the first readable images with every network, and check the maps."""
    results, checks = [], []
    for inputs in everyone:
        name, some = inputs.checkpoint.name, inputs.on(list(readable[:IMAGES]))
        batches = some.batches(name)
        results.append(gradcam(inputs.model, batches, name=name, provenance=inputs.provenance(), **options))
        checks.append(check_maps(inputs, readable, results[-1], options))
    return Trust(len(results[0].images), tuple(checks), agreements(everyone, results))


def agreements(everyone: Sequence[Inputs], results: Sequence[GradCAMResult]) -> tuple[AgreementResult, ...]:
    """Compare the maps of networks of one architecture, the same classes and size, where there are two or more."""
    groups: dict[Any, list[GradCAMResult]] = {}
    for inputs, result in zip(everyone, results, strict=True):
        info = inputs.checkpoint.info
        shape = (result.layer, result.layer_maps.shape, result.size)
        groups.setdefault((info.model.model_dump_json(), info.classes, shape), []).append(result)
    return tuple(agreement(same, same[0].provenance) for same in groups.values() if len(same) > 1)
