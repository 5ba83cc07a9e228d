"""The analyses of the page: each measures what the networks and the images allow, and says what is missing."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dia_analysis import (
    AnalysisInputError,
    CostResult,
    GradCAMResult,
    GradientResult,
    Provenance,
    TrustChecks,
    gradcam,
    measure_cost,
    network_gradients,
)
from dia_analysis import Subject as CostSubject
from dia_analysis.explain.results import COARSE
from dia_analysis.importance.readings import GiniReadings, measure_readings
from dia_analysis.importance.rows import ROWS_ARE, Rows
from dia_analysis.paper.findings import Attention, Finding, cam_finding, cost_findings, gini_finding
from dia_analysis.paper.measure_untrained import Untrained, measure_beside_untrained
from dia_analysis.paper.untrained import BesideUntrained
from dia_analysis.probes.points import has_attention
from dia_analysis.probes.stream import stream_stages
from dia_analysis.results.words import quantity
from dia_analysis.trust.checks import agreements, check_maps
from figures.pages.report_page import SHOWN, Heatmaps, Section

EXPLAINED, MEASURED, ROUNDS = 16, 512, 10  # images explained, images whose gradients are measured, rounds of timing
Again = Callable[..., str]
"""The command that does an analysis again: its name, the networks' places, how many images (None: it takes none), and
further options."""
Judge = Callable[[GradientResult], Finding]


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

    def paths(self) -> Sequence[str]:
        """Their names; of those that can be read."""

    def labels(self) -> Sequence[str | None]:
        """Their classes in words; of those that can be read."""

    def pictures(self, size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
        """The images as people see them, `count` at a time: (image, height, width, 3) bytes."""


@dataclass(frozen=True)
class Known:
    """What is known of a network: `facts`, by their names, and what findings rest on.

    `attention` is what it has in the words of the paper's claims, None if that is not known; `recorded` and
    `known_trained` say whether it is known to be trained; runs of one network have the same `architecture`.
    """

    facts: Mapping[str, str]
    architecture: Hashable
    attention: Attention | None = None
    recorded: bool = False
    known_trained: bool = False
    weights_seed: int | None = None
    made_from: Mapping[str, Any] | None = None


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

    def labelled(self, label: str, /) -> Iterable[tuple[Tensor, Tensor]]:
        """With the numbers of their classes. Raises ValueError if the network does not know these."""

    def answered(self, label: str, /) -> Iterable[tuple[Tensor, Tensor]]:
        """The same, with -1 for images of unknown classes."""

    def before_training(self) -> Untrained | None:
        """The network before its training; None if there is none."""


def correlations(networks: Sequence[Network], again: Again) -> Section[Mapping[str, BesideUntrained]]:
    """Pearson r between the layers of every network with attention."""
    places, missing = _with_attention(networks)
    results = {networks[i].name: _beside_untrained(networks[i]) for i in places}
    images = len(networks[0].images)
    return Section(
        results or None,
        _about_correlation(images),
        [again("correlation", [i], images) for i in places],
        [(name, outcome.finding()) for name, outcome in results.items()],
        missing,
    )


def _about_correlation(images: int) -> str:
    """What is measured."""
    return (
        "Pearson r between the attention maps of two layers of a stage, image by image, on "
        f"{quantity(images, 'image')}; and the same in the untrained network."
    )


def _beside_untrained(network: Network) -> BesideUntrained:
    given: Any = {"recorded": network.known.recorded, "provenance": network.provenance()}
    return measure_beside_untrained(network.model, network.answered, network.before_training(), **given)


def importances(
    networks: Sequence[Network], again: Again, of_untrained: Collection[Rows] = tuple(ROWS_ARE)
) -> Section[Mapping[str, GiniReadings]]:
    """Gini importance of the earlier layers in every network with attention; of the untrained ones by these rows."""
    places, missing = _with_attention(networks)
    some, images = [networks[i] for i in places], networks[0].images
    results = {each.name: _readings(each, images.seed, of_untrained) for each in some}
    attention = {each.name: each.known.attention for each in some if each.known.attention}
    unknown = [each.name for each in some if not each.known.known_trained]
    return Section(
        results or None,
        _about_gini(len(images)),
        [again("gini", places, len(images))] if places else [],
        [("", gini_finding(results, attention, unknown))] if results else [],
        missing,
    )


def _about_gini(images: int) -> str:
    """What is measured."""
    return (
        "Random forests predict a layer's attention from that of the earlier layers of its stage, on "
        f"{quantity(images, 'image')}; R² is on images held out, the null on other images' maps. Centred "
        "rows, one for each (image, channel) pair without the channel's mean, ask "
        "for a rule common to all channels; a vector row is an image."
    )


def _readings(network: Network, seed: int, of_untrained: Collection[Rows]) -> GiniReadings:
    start = network.before_training()
    stream = partial(stream_stages, network.model, network.batches(network.name))
    other = (
        None if start is None else partial(stream_stages, start.model, network.batches(f"{network.name}, untrained"))
    )
    given: Any = {"of_untrained": of_untrained, "seed": seed, "provenance": network.provenance()}
    return measure_readings(stream, other, **given)


def _with_attention(networks: Sequence[Network]) -> tuple[list[int], list[str]]:
    """The places of the networks with attention, and a sentence on each of the others."""
    places = [i for i, network in enumerate(networks) if has_attention(network.model)]
    others = [network.name for i, network in enumerate(networks) if i not in places]
    return places, [f"{name} has no attention, so there are no attention maps to look at." for name in others]


def gradients(networks: Sequence[Network], again: Again, judge: Judge) -> Section[GradientResult]:
    """The gradients of the networks, where the images have labels that they know."""
    images = networks[0].images.some(min(len(networks[0].images), MEASURED))
    found, missing = {}, []
    for place, network in enumerate(networks):
        try:
            found[place] = network_gradients(
                network.model,
                network.of(images).labelled(network.name),
                name=network.name,
                seed=images.seed,
                weights_seed=network.known.weights_seed,
                made_from=network.known.made_from,
                provenance=network.of(images).provenance(),
            )
        except ValueError as error:
            missing.append(f"{network.name}: no gradients, because {error}.")
    result = GradientResult(tuple(found.values())) if found else None
    return Section(
        result,
        f"The gradient of the loss, summed over a batch, at each stage's output, for the trained networks on "
        f"{len(images)} labelled images, in training mode.",
        [again("gradients", list(found), len(images))] if found else [],
        [("", judge(result))] if result else [],
        missing,
    )


def heatmaps(networks: Sequence[Network], again: Again) -> Section[Heatmaps]:
    """What every network looks at in some images, and whether its maps can be trusted."""
    images = networks[0].images.some(min(len(networks[0].images), EXPLAINED))
    layers: dict[int, str | None] = {}
    explained, missing = [], []
    for place, network in enumerate(networks):
        try:
            layer = fine_layer(network)
            explained.append(_explain(network.of(images), layer))
            layers[place] = layer
        except AnalysisInputError as error:
            missing.append(f"{network.name}: no maps, because {error}.")
    count, result = len(images), _together([networks[place] for place in layers], explained, images)
    return Section(
        result,
        f"Grad-CAM of {count} images for the class that each network predicts, the first {min(count, SHOWN)} drawn, "
        "and three checks of whether the maps can be trusted.",
        [_explained_again(again, layers, layer, count) for layer in dict.fromkeys(layers.values())],
        [("", cam_finding(result.results, result.checks, result.agreements))] if result else [],
        missing,
    )


def _explain(network: Network, layer: str | None) -> tuple[GradCAMResult, TrustChecks]:
    """One network's maps of the images, and the checks of whether they can be trusted."""
    images = torch.cat(list(network.batches(network.name)))
    about: Any = {"class_names": network.classes, "model_name": network.name, "provenance": network.provenance()}
    result = gradcam(network.model, images, layer=layer, image_names=network.images.paths(), **about)
    return result, check_maps(network.model, images, result, seed=network.images.seed, layer=layer)


def _together(
    networks: Sequence[Network], explained: Sequence[tuple[GradCAMResult, TrustChecks]], images: Images
) -> Heatmaps | None:
    if not explained:
        return None
    results = [result for result, _ in explained]
    return Heatmaps(
        results=results,
        pictures=next(images.pictures(max(result.size for result in results), SHOWN)),
        labels=images.labels(),
        checks=[checks for _, checks in explained],
        agreements=agreements(results, [network.known.architecture for network in networks]),
        checked=len(results[0].image_names),
    )


def _explained_again(again: Again, layers: Mapping[int, str | None], layer: str | None, count: int) -> str:
    """The command for the networks that were explained at this layer."""
    places = [place for place, own in layers.items() if own == layer]
    return again("gradcam", places, count, "--trust", *(() if layer is None else ("--layer", layer)))


def fine_layer(network: Network) -> str | None:
    """The layer to explain: None, which is the default, unless its maps are too coarse for small images.

    Then it is the last block of the last stage whose maps have 16 positions, if there is one.
    """
    image = next(iter(network.of(network.images.some(1)).batches(network.name)))
    if gradcam(network.model, image).layer_maps[0].size >= COARSE:
        return None
    for layer in reversed(_last_blocks(network.model)):
        if gradcam(network.model, image, layer=layer).layer_maps[0].size >= COARSE:
            return layer
    return None


def _last_blocks(model: nn.Module) -> list[str]:
    """The names of the last blocks of a residual network's stages."""
    blocks = [name for name, _ in model.named_modules() if name.split(".")[::2] == ["stages", "blocks"]]
    blocks = [name for name in blocks if name.count(".") == 3]
    return list({name.split(".")[1]: name for name in blocks}.values())


def costs(
    networks: Sequence[Network], subjects: Mapping[str, CostSubject], again: Again, rounds: int = ROUNDS
) -> Section[CostResult]:
    """What every network costs beside its backbone without attention, which is among the `subjects` if it is known."""
    result = measure_cost(subjects, rounds=rounds, seed=networks[0].images.seed)
    attention = {network.name: network.known.attention for network in networks if network.known.attention}
    without = [name for name, kind in attention.items() if kind in ("none", "self-attention")]
    return Section(
        result,
        _about_cost(result),
        [again("cost", range(len(networks)), None, "--rounds", str(rounds))],
        [("", finding) for finding in cost_findings(result, attention)],
        [f"{name} has no attention module to leave out, so it is its own backbone." for name in without],
    )


def _about_cost(result: CostResult) -> str:
    """What was measured."""
    first = result.networks[0]
    return (
        f"A forward pass in evaluation mode, in batches of {first.input_shape[0]}, on {result.device} with "
        f"{quantity(result.threads, 'thread')}, median of {len(first.seconds)} rounds. Every round times all networks "
        "in turn."
    )
