"""The analyses of the page: each measures what the networks and the images allow, and says what is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dia_analysis import (
    AblationResult,
    AnalysisInputError,
    CostResult,
    GradientResult,
    gradcam,
    measure_ablation,
    measure_cost,
)
from dia_analysis import Subject as CostSubject
from dia_analysis.ablation.findings import findings, is_mostly_fixed
from dia_analysis.ablation.results import NetworkAblation
from dia_analysis.explain.results import COARSE
from dia_analysis.importance.rows import ROWS_ARE, Rows
from dia_analysis.networks import (
    Network,
    compare_heatmaps,
    compare_importance,
    explain,
    gradients_of,
    importance_of,
)
from dia_analysis.paper.findings import cam_finding, cost_findings
from dia_analysis.paper.gradient_pairs import BesidePlain
from dia_analysis.paper.importance import ImportanceComparison
from dia_analysis.paper.measure_untrained import measure_beside_untrained
from dia_analysis.paper.untrained import BesideUntrained
from dia_analysis.probes.points import has_attention
from dia_analysis.results.words import quantity
from figures.pages.report_page import SHOWN, Heatmaps, Section

Again = Callable[..., str]
"""The command that does an analysis again: its name, the networks' places, how many images (None: it takes none), and
further options."""


Fit = Callable[[Any], Any]
"""Gives other images for a network's means, with their classes; None: every other one of its images."""

REPLACED_BY = ("mean", "resample", "constant")


@dataclass(frozen=True)
class Effort:
    """How much is measured: of how many images at most each analysis (None: of all).

    `of_untrained` are the rows by which the untrained networks' importance is measured, `trust` says whether the
    heatmaps are checked, `rounds` how often each network is timed.
    """

    importance: int | None = None
    ablation: int = 1024
    gradients: int = 512
    heatmaps: int = 16
    of_untrained: tuple[Rows, ...] = tuple(ROWS_ARE)
    trust: bool = True
    rounds: int = 10


def correlations(
    networks: Sequence[Network], places: Sequence[int], again: Again
) -> Section[Mapping[str, BesideUntrained]]:
    """Pearson r between the layers of every network with attention, which stand at these places."""
    results = {networks[i].name: _beside_untrained(networks[i]) for i in places}
    images = len(networks[0].images)
    return Section(
        results or None,
        "Pearson r between the attention maps of two layers of a stage, image by image, on "
        f"{quantity(images, 'image')}; and the same in the untrained network.",
        [again("correlation", [i], images) for i in places],
        [(name, outcome.finding()) for name, outcome in results.items()],
        _without(networks, places),
    )


def _beside_untrained(network: Network) -> BesideUntrained:
    return measure_beside_untrained(
        network.model,
        network.answered,
        network.before_training(),
        recorded=network.known.recorded,
        provenance=network.provenance(),
    )


def ablations(
    networks: Sequence[Network], places: Sequence[int], again: Again, effort: Effort, fit: Fit
) -> Section[AblationResult]:
    """What replacing every map does to the answers of the networks with attention, which stand at these places."""
    some = [_with_images(networks[i], effort.ablation) for i in places]
    found, missing = {}, _without(networks, places)
    for place, network in zip(places, some, strict=True):
        try:
            found[place] = _ablation(network, fit(network))
        except AnalysisInputError as error:
            missing.append(f"{network.name}: no ablation, because {error}.")
    result = AblationResult.beside(list(found.values())) if found else None
    images = len(some[0].images) if some else 0
    return Section(
        result,
        "Every attention map is replaced while the network runs: by its mean over images, by another image's, by one "
        f"number; {quantity(images, 'image')}. The means are those of other images than the accuracy.",
        [again("ablate", list(found), images, "--layers", "all", *_by(REPLACED_BY))] if found else [],
        [(network.name, _said(network)) for one in found.values() for network in one.networks],
        missing,
    )


def _ablation(network: Network, others: Any) -> AblationResult:
    return measure_ablation(
        network.model,
        list(network.answered(f"{network.name}, ablated")),
        others,
        replace_by=REPLACED_BY,
        layers=["all"],
        swap=False,
        seed=network.images.seed,
        name=network.name,
        provenance=network.provenance(),
    )


def _said(network: NetworkAblation) -> str:
    """What the ablation says, and what could follow from it."""
    fold = ["dia-train fold takes such gates away and measures what that costs."] if is_mostly_fixed(network) else []
    return " ".join([*findings(network), *fold])


def _by(kinds: Sequence[str]) -> list[str]:
    return [word for kind in kinds for word in ("--replace-by", kind)]


def importances(
    networks: Sequence[Network], places: Sequence[int], again: Again, effort: Effort
) -> Section[ImportanceComparison]:
    """Gini importance of the earlier layers in every network with attention, which stand at these places."""
    images = len(networks[0].images) if effort.importance is None else effort.importance
    some = [_with_images(networks[i], images) for i in places]
    readings = {each.name: importance_of(each, of_untrained=effort.of_untrained) for each in some}
    result = compare_importance(readings, {each.name: each.known for each in some}) if some else None
    return Section(
        result,
        "Random forests predict a layer's attention from that of the earlier layers of its stage, on "
        f"{quantity(images, 'image')}; R² is on images held out, the null on other images' maps. Centred "
        "rows, one for each (image, channel) pair without the channel's mean, ask "
        "for a rule common to all channels; a vector row is an image.",
        [again("gini", places, images)] if places else [],
        [("", result.finding())] if result else [],
        _without(networks, places),
    )


def _with_images(network: Network, at_most: int) -> Network:
    """The network with so many of its images."""
    images = network.images
    return network if len(images) <= at_most else network.of(images.some(at_most))


def with_attention(networks: Sequence[Network]) -> list[int]:
    """The places of the networks with attention, which one pass of each tells."""
    two = [next(iter(_with_images(network, 2).batches(network.name))) for network in networks]
    return [i for i, network in enumerate(networks) if has_attention(network.model, two[i])]


def _without(networks: Sequence[Network], places: Sequence[int]) -> list[str]:
    others = [network.name for i, network in enumerate(networks) if i not in places]
    return [f"{name} has no attention, so there are no attention maps to look at." for name in others]


def gradients(networks: Sequence[Network], again: Again, effort: Effort) -> Section[BesidePlain]:
    """The gradients of the networks, where the images have labels that they know."""
    some = [_with_images(network, effort.gradients) for network in networks]
    found, missing = {}, []
    for place, network in enumerate(some):
        try:
            found[place] = gradients_of(network)
        except ValueError as error:
            missing.append(f"{network.name}: no gradients, because {error}.")
    result = BesidePlain(GradientResult(tuple(found.values()))) if found else None
    images = len(some[0].images)
    return Section(
        result,
        f"The gradient of the loss, summed over a batch, at each stage's output, for the trained networks on "
        f"{images} labelled images, in training mode.",
        [again("gradients", list(found), images)] if found else [],
        [("", result.finding())] if result else [],
        missing,
    )


def heatmaps(networks: Sequence[Network], again: Again, effort: Effort) -> Section[Heatmaps]:
    """What every network looks at in some images, and whether its maps can be trusted."""
    some = [_with_images(network, effort.heatmaps) for network in networks]
    layers: dict[int, str | None] = {}
    explained, missing = [], []
    for place, network in enumerate(some):
        try:
            layer = fine_layer(network)
            explained.append(explain(network, layer=layer, trust=effort.trust))
            layers[place] = layer
        except AnalysisInputError as error:
            missing.append(f"{network.name}: no maps, because {error}.")
    count = len(some[0].images)
    seen = [some[place] for place in layers]
    found = compare_heatmaps(seen, explained) if explained else None
    drawn = f", the first {min(count, SHOWN)} drawn, and three checks of whether the maps can be trusted"
    return Section(
        None if found is None else Heatmaps(found, [next(each.pictures(found.size, SHOWN)) for each in seen]),
        f"Grad-CAM of {count} images for the class that each network predicts{drawn if effort.trust else ''}.",
        [_explained_again(again, layers, layer, count) for layer in dict.fromkeys(layers.values())],
        [("", cam_finding(found.results, found.trust))] if found else [],
        missing,
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
    networks: Sequence[Network], subjects: Mapping[str, CostSubject], again: Again, effort: Effort
) -> Section[CostResult]:
    """What every network costs beside its backbone without attention, which is among the `subjects` if it is known."""
    result = measure_cost(subjects, rounds=effort.rounds, seed=networks[0].images.seed)
    attention = {network.name: network.known.attention for network in networks if network.known.attention}
    without = [name for name, kind in attention.items() if kind in ("none", "self-attention")]
    first = result.networks[0]
    return Section(
        result,
        f"A forward pass in evaluation mode, in batches of {first.input_shape[0]}, on {result.device} with "
        f"{quantity(result.threads, 'thread')}, median of {len(first.seconds)} rounds. Every round times all networks "
        "in turn.",
        [again("cost", range(len(networks)), None, "--rounds", str(effort.rounds))],
        [("", finding) for finding in cost_findings(result, attention)],
        [f"{name} has no attention module to leave out, so it is its own backbone." for name in without],
    )
