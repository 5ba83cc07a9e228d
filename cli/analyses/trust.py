"""Whether the heatmaps of checkpoints can be trusted: the checks that --trust asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

import figures
from cli.common.inputs import Inputs
from dia_analysis import (
    GradCAMResult,
    TrustChecks,
    gradcam,
)
from dia_analysis.results.output import file_name
from dia_analysis.trust.checks import TrustReport, agreements, check_maps

IMAGES = 16


def draw(trust: TrustReport) -> dict[str, Figure]:
    """The checks of every network."""
    return {
        f"trust-{file_name(check.name)}": figures.trust_checks(check.randomization, check.road)
        for check in trust.checks
    }


def check_images(
    inputs: Inputs, readable: Sequence[int], result: GradCAMResult, options: Mapping[str, Any]
) -> TrustChecks:
    """Check a network's maps, made with the options, of the first readable images, for which `result` holds them."""
    batch = torch.cat(list(inputs.on(list(readable[:IMAGES])).batches(f"{result.name}: trust")))
    return check_maps(inputs.model, batch, result, seed=inputs.images.seed, **options)


def check_some(everyone: Sequence[Inputs], readable: Sequence[int], options: Mapping[str, Any]) -> TrustReport:
    """Explain the first readable images with every network, and check the maps."""
    results, checks = [], []
    for inputs in everyone:
        batches = inputs.on(list(readable[:IMAGES])).batches(inputs.name)
        results.append(
            gradcam(inputs.model, batches, model_name=inputs.name, provenance=inputs.provenance(), **options)
        )
        checks.append(check_images(inputs, readable, results[-1], options))
    runs = agreements(results, [each.architecture for each in everyone])
    return TrustReport(len(results[0].image_names), tuple(checks), runs)
