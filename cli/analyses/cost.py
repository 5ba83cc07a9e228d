"""dia-analyze cost: networks beside their backbones without attention."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

import figures
from cli.common.images import prepared_device
from cli.common.networks import Candidate
from cli.common.options import CostOptions
from cli.common.publish import Found, Out
from dia_analysis import CostResult, Provenance, Subject, measure_cost
from dia_analysis.paper.numbers import TIME_RATIOS
from dia_models import Network, build_model
from dia_models.factory import without_attention

Placed = TypeVar("Placed", Network, Tensor)
PAPER = ", ".join(f"{name} {ratio:.2f}" for name, ratio in TIME_RATIOS.items())


def report(candidates: list[Candidate], given: CostOptions, out: Out) -> None:
    """Measure, print the table or the JSON document, and write everything."""
    with out.folder("cost", [candidate.name for candidate in candidates]) as taken:
        result = measure_cost(subjects_of(candidates, given), rounds=given.rounds, seed=given.seed)
        out.publish(found(result), taken)


def found(result: CostResult) -> Found:
    """What to print and to write."""
    compared = any(network.baseline not in (None, network.name) for network in result.networks)
    drawn = Found.of(result, lambda: {"cost-ratios": figures.cost_ratios(result)} if compared else {})
    return drawn.beside(text=f"\nThe paper's ratios for ResNet164 on a GPU (section VI-B1): {PAPER}.")


def subjects_of(candidates: Iterable[Candidate], given: CostOptions) -> dict[str, Subject]:
    """The networks by name, each with its backbone without attention, which is added where it is not there yet."""
    opened = {candidate.name: _opened(candidate, given) for candidate in candidates}
    subjects = {name: subject for name, (_, subject) in opened.items()}
    plain = {_same(m, s): name for name, (m, s) in opened.items() if without_attention(m.spec) == m.spec}
    for name, (model, subject) in opened.items():
        baseline = _placed(build_model(without_attention(model.spec)), subject.images.device)
        key = _same(baseline, subject)
        if key not in plain:
            plain[key] = baseline.spec.name if baseline.spec.name not in subjects else f"{name} without attention"
            subjects[plain[key]] = Subject(baseline, subject.images, plain[key])
        subjects[name] = replace(subject, baseline=plain[key])
    return subjects


def _opened(candidate: Candidate, given: CostOptions) -> tuple[Network, Subject]:
    """A network on the device, and with the images that it is timed on."""
    device, seed, checkpoint = prepared_device(given.device), given.seed, candidate.read()
    if checkpoint is None:
        model, size = candidate.fresh(given.classes, 3, seed), (given.image_size, given.image_size)
        origin = Provenance(seed=seed)
    else:
        model, size = checkpoint.build(), checkpoint.info.preprocessing.size
        origin = Provenance(checkpoint=checkpoint.name, checkpoint_sha256=checkpoint.sha256, seed=seed)
    shape = (given.batch_size, model.spec.in_channels, *size)
    images = _placed(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), device)
    return model, Subject(_placed(model, device), images, provenance=origin)


def _placed(given: Placed, device: torch.device) -> Placed:
    return given.to(device).to(memory_format=torch.channels_last)


def _same(model: Network, subject: Subject) -> tuple[str, tuple[int, ...]]:
    return model.spec.model_dump_json(), tuple(subject.images.shape)
