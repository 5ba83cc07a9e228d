"""Whether the heatmaps of checkpoints can be trusted: the checks that --trust asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from matplotlib.figure import Figure

import figures
from cli.common.inputs import Inputs
from dia_analysis import (
    AgreementResult,
    GradCAMResult,
    TrustChecks,
    check_randomization,
    check_road,
    gradcam,
    measure_agreement,
)
from dia_analysis.results.output import file_name
from dia_analysis.trust.checks import TrustReport

IMAGES = 16


def draw(trust: TrustReport) -> dict[str, Figure]:
    """The checks of every network."""
    return {
        f"trust-{file_name(check.name)}": figures.trust_checks(check.randomization, check.road)
        for check in trust.checks
    }


def check_maps(
    inputs: Inputs, readable: Sequence[int], result: GradCAMResult, options: Mapping[str, Any]
) -> TrustChecks:
    """Check a network's maps, made with the options, of the first readable images, for which `result` holds them."""
    some = replace(inputs, chosen=list(readable[:IMAGES]))
    batch = torch.cat(list(some.batches(f"{result.name}: trust")))
    given = {**options, "target": result.target[: len(batch)], "seed": inputs.seed}
    return TrustChecks(
        result.name,
        check_randomization(inputs.model, batch, provenance=result.provenance, **given),
        check_road(inputs.model, batch, provenance=result.provenance, **given),
    )


def check_some(everyone: Sequence[Inputs], readable: Sequence[int], options: Mapping[str, Any]) -> TrustReport:
    """Explain the first readable images with every network, and check the maps."""
    results, checks = [], []
    for inputs in everyone:
        name, some = inputs.checkpoint.name, replace(inputs, chosen=list(readable[:IMAGES]))
        batches = some.batches(name)
        results.append(gradcam(inputs.model, batches, model_name=name, provenance=inputs.provenance(), **options))
        checks.append(check_maps(inputs, readable, results[-1], options))
    return TrustReport(len(results[0].image_names), tuple(checks), agreements(everyone, results))


def agreements(everyone: Sequence[Inputs], results: Sequence[GradCAMResult]) -> tuple[AgreementResult, ...]:
    """Compare the maps of networks of one architecture, the same classes and size, where there are two or more."""
    groups: dict[Any, list[GradCAMResult]] = {}
    for inputs, result in zip(everyone, results, strict=True):
        info = inputs.checkpoint.info
        shape = (result.layer, result.layer_maps.shape, result.size)
        groups.setdefault((info.model.model_dump_json(), info.classes, shape), []).append(result)
    return tuple(measure_agreement(same, same[0].provenance) for same in groups.values() if len(same) > 1)
