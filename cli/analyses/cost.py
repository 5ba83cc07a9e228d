"""dia-analyze cost: networks beside their backbones without attention."""

from collections.abc import Iterable
from pathlib import Path

import torch

import figures
from cli.common.networks import Candidate
from cli.common.publish import Found, Out
from dia_analysis import CostResult, Provenance, Subject, measure_cost
from dia_analysis.paper.numbers import TIME_RATIOS
from dia_analysis.results.words import quantity
from dia_models import Network, build_model
from dia_models.factory import without_attention
from dia_models.training.allocator import keep_freed_memory
from dia_models.training.device import choose_device

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
    as_json: bool,
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
        found(result).publish(taken, as_json=as_json)


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
    where = choose_device(device)
    if where.type == "cpu":
        keep_freed_memory()
    subjects = with_baselines(_opened(c, classes, image_size, batch_size, where, seed) for c in candidates)
    return measure_cost(subjects, rounds=rounds, seed=seed)


def about(result: CostResult) -> str:
    """What was measured."""
    threads = quantity(result.threads, "thread")
    first = result.networks[0]
    return (
        f"A forward pass in evaluation mode, in batches of {first.input_shape[0]}, on {result.device} with {threads}, "
        f"median of {len(first.seconds)} rounds. Every round times all networks in turn."
    )


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
