"""Networks with the images that they see and what is known of them: what commands and pages analyze."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from dia_analysis.explain.gradcam import gradcam
from dia_analysis.explain.results import GradCAMResult
from dia_analysis.explain.targets import Scores
from dia_analysis.gradients.measure import network_gradients
from dia_analysis.gradients.results import NetworkGradients
from dia_analysis.importance.readings import GiniReadings, Progress, measure_readings
from dia_analysis.importance.rows import ROWS_ARE, Rows
from dia_analysis.paper.findings import Attention
from dia_analysis.paper.importance import ImportanceComparison
from dia_analysis.paper.measure_untrained import Untrained
from dia_analysis.probes.common_channels import Aligned, Remembered, of_stages
from dia_analysis.probes.modes import Mode
from dia_analysis.probes.stages import StageMaps
from dia_analysis.probes.stream import stream_stages
from dia_analysis.results.provenance import Provenance
from dia_analysis.trust.checks import TrustChecks, TrustReport, agreements, check_maps
from dia_analysis.trust.heatmaps import HeatmapComparison

CHECKED = 16  # images with whose maps the checks of trust are made


@runtime_checkable
class Images(Protocol):
    """The images that the networks see, and how they were chosen."""

    @property
    def data(self) -> str: ...  # noqa: D102
    @property
    def selection(self) -> str: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    def __len__(self) -> int: ...
    def some(self, count: int) -> "Images":
        """So many of them."""

    def first(self, count: int) -> "Images":
        """The first ones that can be read, at most so many."""

    def of(self, names: Iterable[str], /) -> "Images":
        """Those of these names in the same data."""

    def paths(self) -> Sequence[str]:
        """Their names; of those that can be read."""

    def labels(self) -> Sequence[str | None]:
        """Their classes in words; of those that can be read."""


@dataclass(frozen=True)
class Known:
    """What is known of a network: `facts`, by their names, and what findings rest on.

    Runs of one network have the same `architecture`. `attention` is what it has in the words of the paper's claims,
    None if that is not known; `recorded` and `known_trained` say whether it is known to be trained. `made_from`,
    `plain_from`, `weights_seed` and `epoch` are as `network_gradients` takes them,
    `scores` as `gradcam` does.
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    architecture: Hashable = None
    attention: Attention | None = None
    recorded: bool = False
    known_trained: bool = False
    made_from: Mapping[str, Any] | None = None
    plain_from: Mapping[str, Any] | None = None
    weights_seed: int | None = None
    epoch: int | None = None
    scores: Scores = "softmax"


@runtime_checkable
class Network(Protocol):
    """A network, what is known of it, and the images as it expects them: batches of (image, channel, height, width)."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def model(self) -> nn.Module: ...  # noqa: D102
    @property
    def images(self) -> Images: ...  # noqa: D102
    @property
    def classes(self) -> Sequence[str] | None: ...  # noqa: D102
    @property
    def known(self) -> Known: ...  # noqa: D102
    def provenance(self) -> Provenance: ...  # noqa: D102
    def of(self, images: Any, /) -> "Network":
        """The network with other images of the same data."""

    def batches(self, label: str, /) -> Iterable[Tensor]:
        """The images; `label` says what for."""

    def pictures(self, size: tuple[int, int], count: int, /) -> Iterator[np.ndarray]:
        """What it sees of the images, as people see them, `count` at a time: (image, height, width, 3) bytes."""

    def labelled(self, label: str, /) -> Iterable[tuple[Tensor, Tensor]]:
        """With the numbers of their classes. Raises ValueError if the network does not know these."""

    def answered(self, label: str, /) -> Iterable[tuple[Tensor, Tensor]]:
        """The same, with -1 for images of unknown classes."""

    def before_training(self) -> Untrained | None:
        """The network before its training; None if there is none."""


def importance_of(
    network: Network,
    points: Sequence[str] | None = None,
    *,
    rows: Rows = "centred",
    of_untrained: Collection[Rows] = tuple(ROWS_ARE),
    progress: Progress = lambda about, finished, total: None,
) -> GiniReadings:
    """Gini importance of the earlier layers, in a network and in the same before training; see `measure_readings`."""
    start = network.before_training()
    shown = Remembered(network.batches(network.name))
    stream = partial(stream_stages, network.model, shown, points=points)
    other = None
    if start is not None:
        other = partial(stream_stages, start.model, network.batches(f"{network.name}, untrained"), points=points)
    about: Any = {"seed": network.images.seed, "provenance": network.provenance(), "progress": progress}

    def aligned(stages: Sequence[StageMaps]) -> list[Aligned | None]:
        return of_stages(network.model, shown.images, stages)

    return measure_readings(stream, other, aligned=aligned, rows=rows, of_untrained=of_untrained, **about)


def compare_importance(readings: Mapping[str, GiniReadings], known: Mapping[str, Known]) -> ImportanceComparison:
    """Networks' importance side by side, by name, with what is known of those of which anything is."""
    attention = {name: each.attention for name, each in known.items() if each.attention is not None}
    unknown = [name for name in readings if name not in known or not known[name].known_trained]
    return ImportanceComparison(readings, attention, unknown)


def gradients_of(
    network: Network, *, points: Sequence[str] | None = None, per_block: bool = False, mode: Mode = "training"
) -> NetworkGradients:
    """The gradients of a network, as `network_gradients`; what is known of it is passed on."""
    known = network.known
    return network_gradients(
        network.model,
        network.labelled(network.name if known.epoch is None else f"{network.name}, epoch {known.epoch}"),
        name=network.name,
        points=points,
        per_block=per_block,
        mode=mode,
        seed=network.images.seed,
        epoch=known.epoch,
        weights_seed=known.weights_seed,
        made_from=known.made_from,
        plain_from=known.plain_from,
        provenance=network.provenance(),
    )


def explain(
    network: Network, *, target: str | None = None, trust: bool = False, **options: Any
) -> tuple[GradCAMResult, TrustChecks | None]:
    """A network's heatmaps, and the checks of those of the first images if `trust`; options as `gradcam` takes them."""
    about: Any = {"class_names": network.classes, "model_name": network.name, "provenance": network.provenance()}
    about["scores"] = network.known.scores
    found = gradcam(network.model, network.batches(network.name), target=target, **options, **about)
    result = replace(found, image_names=tuple(network.images.paths()))
    if not trust:
        return result, None
    some = torch.cat(list(network.of(network.images.first(CHECKED)).batches(f"{network.name}: trust")))
    return result, check_maps(network.model, some, result, seed=network.images.seed, **options)


def compare_heatmaps(
    networks: Sequence[Network], explained: Sequence[tuple[GradCAMResult, TrustChecks | None]]
) -> HeatmapComparison:
    """What `explain` gives for networks on the same images, together."""
    results, labels = [result for result, _ in explained], tuple(networks[0].images.labels())
    checks = tuple(check for _, check in explained if check is not None)
    runs = agreements(results, [network.known.architecture for network in networks])
    trust = TrustReport(min(CHECKED, len(labels)), checks, runs) if checks else None
    return HeatmapComparison(tuple(results), labels, trust)
