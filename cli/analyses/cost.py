"""dia-analyze cost: networks beside their backbones without attention."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from cli.common.networks import Candidate
from cli.common.options import CostOptions
from cli.common.publish import Found, Out
from dia_analysis import Provenance, Subject, measure_cost
from dia_analysis.paper.numbers import TIME_RATIOS
from dia_models import ModelSpec, OpenedNetwork, build_model
from dia_models.data import CIFAR_MEAN, CIFAR_STD, Preprocessing
from dia_models.factory import without_attention
from dia_models.networks.data_facts import DataFacts
from dia_models.networks.sources import is_own
from dia_models.training.device import process_device

Placed = TypeVar("Placed", nn.Module, Tensor)
SMALL = DataFacts(Preprocessing(height=32, width=32, mean=CIFAR_MEAN, std=CIFAR_STD), tuple(map(str, range(100))))
PAPER = ", ".join(f"{name} {ratio:.2f}" for name, ratio in TIME_RATIOS.items())


def report(candidates: list[Candidate], given: CostOptions, out: Out) -> None:
    """Measure, print the table or the JSON document, and write everything."""
    with out.folder("cost", [candidate.name for candidate in candidates]) as taken:
        result = measure_cost(subjects_of(candidates, given), rounds=given.rounds, seed=given.seed)
        text = f"\nThe paper's ratios for ResNet164 on a GPU (section VI-B1): {PAPER}."
        out.publish(Found.of(result).beside(text=text), taken)


def subjects_of(candidates: Iterable[Candidate], given: CostOptions) -> dict[str, Subject]:
    """The networks by name; of ours each with its backbone without attention, which is added if it is not there yet."""
    opened = {each.name: _opened(each, given) for each in candidates}
    subjects = {name: subject for name, (_, subject) in opened.items()}
    ours = {name: (network.spec, s) for name, (network, s) in opened.items() if network.spec is not None}
    plain = {_same(spec, s): name for name, (spec, s) in ours.items() if without_attention(spec) == spec}
    for name, (spec, subject) in ours.items():
        key = _same(baseline := without_attention(spec), subject)
        if key not in plain:
            plain[key] = baseline.name if baseline.name not in subjects else f"{name} without attention"
            model = _placed(build_model(baseline), subject.images.device)
            subjects[plain[key]] = Subject(model, subject.images, plain[key])
        subjects[name] = replace(subject, baseline=plain[key])
    return subjects


def _opened(candidate: Candidate, given: CostOptions) -> tuple[OpenedNetwork, Subject]:
    """A network on the device, and with the images that it is timed on."""
    own = candidate.random and is_own(candidate.source)
    network, device = candidate.open(SMALL if own else None, given.seed), process_device(given.device)
    shape = (given.batch_size, len(network.preprocessing.mean), *network.preprocessing.size)
    images = _placed(torch.randn(shape, generator=torch.Generator().manual_seed(given.seed)), device)
    name, sha256 = (None, None) if candidate.random else (network.name, network.sha256)
    return network, Subject(
        _placed(network.model, device), images, provenance=Provenance(name, sha256, seed=given.seed)
    )


def _placed(given: Placed, device: torch.device) -> Placed:
    return given.to(device).to(memory_format=torch.channels_last)


def _same(spec: ModelSpec, subject: Subject) -> tuple[str, tuple[int, ...]]:
    return spec.model_dump_json(), tuple(subject.images.shape)
