"""dia-analyze cost: networks beside their backbones without attention."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import figures
from cli.common.images import prepared_device
from cli.common.networks import Candidate
from cli.common.publish import Found, Out
from dia_analysis import CostResult, Provenance, Subject, measure_cost
from dia_analysis.paper.numbers import TIME_RATIOS
from dia_models import Network, build_model
from dia_models.factory import without_attention

PAPER = ", ".join(f"{name} {ratio:.2f}" for name, ratio in TIME_RATIOS.items())


def report(
    candidates: list[Candidate],
    out: Out,
    *,
    classes: int,
    image_size: int,
    batch_size: int,
    rounds: int,
    device: str,
    seed: int,
) -> None:
    """Measure, print the table or the JSON document, and write everything."""
    with out.folder("cost", [candidate.name for candidate in candidates]) as taken:
        result = measure(
            candidates,
            classes=classes,
            image_size=image_size,
            batch_size=batch_size,
            rounds=rounds,
            device=device,
            seed=seed,
        )
        out.publish(found(result), taken)


def found(result: CostResult) -> Found:
    """What to print and to write."""

    def write(folder: Path) -> None:
        compared = any(network.baseline not in (None, network.name) for network in result.networks)
        result.write(folder, {"cost-ratios": figures.cost_ratios(result)} if compared else None)

    text = f"{result.summary()}\nThe paper's ratios for ResNet164 on a GPU (section VI-B1): {PAPER}."
    return Found(result.about(), result.to_dict(), text, write)


def measure(
    candidates: Iterable[Candidate],
    *,
    classes: int = 10,
    image_size: int = 32,
    batch_size: int,
    rounds: int,
    device: str,
    seed: int,
) -> CostResult:
    """Measure the networks and their backbones; `classes` and `image_size` are for those with random weights."""
    given: Any = {"classes": classes, "image_size": image_size, "batch_size": batch_size, "device": device}
    return measure_cost(subjects_of(candidates, **given, seed=seed), rounds=rounds, seed=seed)


def subjects_of(
    candidates: Iterable[Candidate],
    *,
    classes: int = 10,
    image_size: int = 32,
    batch_size: int,
    device: str,
    seed: int,
) -> dict[str, Subject]:
    """The networks and their backbones on a device, each with its images."""
    where = prepared_device(device)
    return with_baselines(_opened(c, classes, image_size, batch_size, where, seed) for c in candidates)


def with_baselines(opened: Iterable[tuple[str, Network, Subject]]) -> dict[str, Subject]:
    """The networks by name, each with its backbone without attention, which is added where it is not there yet."""
    networks = list(opened)
    subjects = {name: subject for name, _, subject in networks}
    plain = {
        _same(model, subject): name for name, model, subject in networks if without_attention(model.spec) == model.spec
    }
    for name, model, subject in networks:
        baseline = build_model(without_attention(model.spec))
        baseline.to(subject.images.device).to(memory_format=torch.channels_last)
        key = _same(baseline, subject)
        if key not in plain:
            plain[key] = baseline.spec.name if baseline.spec.name not in subjects else f"{name} without attention"
            subjects[plain[key]] = Subject(baseline, subject.images, plain[key])
        subjects[name] = Subject(model, subject.images, plain[key], subject.provenance)
    return subjects


def _opened(
    candidate: Candidate, classes: int, size: int, batch_size: int, device: torch.device, seed: int
) -> tuple[str, Network, Subject]:
    checkpoint = candidate.read()
    if checkpoint is None:
        model, shape, provenance = candidate.fresh(classes, 3, seed), (size, size), Provenance(seed=seed)
    else:
        model, shape = checkpoint.build(), checkpoint.info.preprocessing.size
        provenance = Provenance(checkpoint=checkpoint.name, checkpoint_sha256=checkpoint.sha256, seed=seed)
    model.to(device).to(memory_format=torch.channels_last)
    images = torch.randn(batch_size, model.spec.in_channels, *shape, generator=torch.Generator().manual_seed(seed))
    images = images.to(device).to(memory_format=torch.channels_last)
    return candidate.name, model, Subject(model, images, provenance=provenance)


def _same(model: Network, subject: Subject) -> tuple[str, tuple[int, ...]]:
    return model.spec.model_dump_json(), tuple(subject.images.shape)
