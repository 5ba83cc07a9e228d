"""What an ablation says, in words.

Mean ablation asks whether a trained network uses the dependence of its maps on the image at inference. It does not say
whether the network could have been trained without it, nor whether another layer's map would do.
"""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from dia_analysis.ablation.swap_picture import has_scores
from dia_analysis.ablation.swapping import MATCHED
from dia_analysis.results.words import quantity

if TYPE_CHECKING:
    from dia_analysis.ablation.results import Ablation, NetworkAblation

FEW = 0.05
"""Share of predictions below which a change is called small, at the upper end of its interval."""
SMALL = 0.02
"""Fall of the accuracy that is still called small, at the far end of its interval."""
FIXED = {
    "channel": "a fixed scaling of channels",
    "branch": "a fixed mixing of branches",
    "spatial": "a fixed weighting of positions",
    "directional": "a fixed weighting of rows and columns",
    "self-attention": "a fixed mixing of tokens",
    "cross-covariance": "a fixed mixing of channels",
}
SWAP_SCOPE = (
    "These are estimates, no test of a chosen pair. They say whether another layer's map can stand in now, not whether "
    "one module can learn to serve several layers."
)
SCOPE = "This is what the trained network uses at inference; it does not say what training would have needed."


def findings(network: "NetworkAblation") -> list[str]:
    """Sentences on mean ablation: of all layers, or else each stage, then of single layers; then on the layer swap.

    None without either, and of a network that is not known to do better than always answering one class.
    """
    means = [one for one in network.ablations if one.replaced_by == "mean"]
    if not means and not network.swaps:
        return []
    if (reason := _untrained(network)) is not None:
        return [reason]
    return [*(_of_means(network, means) if means else []), *_of_swaps(network)]


def is_mostly_fixed(network: "NetworkAblation") -> bool:
    """Whether gates of channels, of all layers or of a stage, can be replaced by their means at little cost."""
    means = [one for one in network.ablations if one.replaced_by == "mean" and one.effect == "total"]
    known = bool(means) and _untrained(network) is None
    return known and any(_is_small(one) and _kinds(network, one) == {"channel"} for one in means)


def _is_small(one: "Ablation") -> bool:
    return one.scores.changed.high < FEW and one.scores.accuracy_change.low > -SMALL


def _kinds(network: "NetworkAblation", one: "Ablation") -> set[str]:
    return {network.layers[i].kind for i in one.layers}


def _of_means(network: "NetworkAblation", means: "Sequence[Ablation]") -> list[str]:
    whole = [one for one in means if one.stage is None]
    stages = [one for one in means if one.stage is not None and not _is_single(network, one)]
    said = [_whole(network, one) for one in whole or stages]
    if whole and len(stages) > 1:
        said.append(_by_stage(network, stages))
    layers = [one for one in means if _is_single(network, one)]
    pairs = list(zip(layers[::2], layers[1::2], strict=True))  # the total effect, then the direct one
    return [*said, *(_single(network, total, direct) for total, direct in pairs), SCOPE]


def _is_single(network: "NetworkAblation", one: "Ablation") -> bool:
    """Whether a layer was named by itself: such have both effects."""
    both = {(x.layers, x.effect) for x in network.ablations}
    return len(one.layers) == 1 and one.stage is not None and {(one.layers, "total"), (one.layers, "direct")} <= both


def _untrained(network: "NetworkAblation") -> str | None:
    if network.most_frequent is None:
        return "No finding: without labels it is not known whether the network does better than chance."
    if network.accuracy.low > max(network.most_frequent, 1 / network.num_classes):
        return None
    return (
        f"No finding: accuracy {100 * network.accuracy.value:.1f} % is not above that of always answering one class "
        f"({100 * network.most_frequent:.1f} %) with {network.num_images} images."
    )


def _whole(network: "NetworkAblation", one: "Ablation") -> str:
    maps = "every map" if one.stage is None else f"the maps of stage {one.stage}"
    before, after = (100 * accuracy.value for accuracy in (network.accuracy, one.scores.accuracy))
    change = f"accuracy {before:.1f} -> {after:.1f}"
    start = f"Replacing {maps} by its mean over images" if one.stage is None else f"Replacing {maps} by their means"
    changed = f"{100 * one.scores.changed.value:.1f} % of the predictions"
    return f"{start} changes {changed} ({change}): {_verdict(network, one)}."


def _verdict(network: "NetworkAblation", one: "Ablation") -> str:
    scores = one.scores
    kinds = _kinds(network, one)
    if _is_small(one):
        return f"the attention here is mostly {FIXED.get(kinds.pop(), 'fixed') if len(kinds) == 1 else 'fixed'}"
    if scores.accuracy_change.high < 0:
        return "the network uses its maps' dependence on the image"
    if scores.accuracy_change.low > 0:
        return "the network answers better without its maps' dependence on the image"
    return f"that the accuracy depends on it is not shown with {network.num_images} images"


def _by_stage(network: "NetworkAblation", stages: Sequence["Ablation"]) -> str:
    parts = (
        f"stage {one.stage} {100 * one.scores.accuracy_change.value:+.1f} points "
        f"[{100 * one.scores.accuracy_change.low:+.1f}, {100 * one.scores.accuracy_change.high:+.1f}]"
        for one in stages
    )
    return f"By stage, the change of the accuracy: {', '.join(parts)}."


def _single(network: "NetworkAblation", total: "Ablation", direct: "Ablation") -> str:
    effects = (
        f"{100 * one.scores.accuracy_change.value:+.1f} points [{100 * one.scores.accuracy_change.low:+.1f}, "
        f"{100 * one.scores.accuracy_change.high:+.1f}]"
        for one in (total, direct)
    )
    layer = network.layers[total.layers[0]]
    in_all, alone = effects
    return (
        f"Stage {layer.stage}, layer {layer.number} by its mean: accuracy {in_all} in all, {alone} directly "
        "(the other maps kept)."
    )


def _of_swaps(network: "NetworkAblation") -> list[str]:
    """How far other layers' maps stand in, over the ordered pairs of each stage."""
    said = [_swaps_of_stage(network, stage) for stage in sorted({one.stage for one in network.swaps if one.stage})]
    return [*said, SWAP_SCOPE] if has_scores(network) else said


def _swaps_of_stage(network: "NetworkAblation", stage: int) -> str:
    pairs = [one.swap_score for one in network.swaps if one.stage == stage and one.replaced_by == MATCHED]
    scores = sorted(score.value for score in pairs if score is not None and not np.isnan(score.value))
    start = f"Layer swap, stage {stage}"
    if not scores:
        return f"{start}: undefined, as permuting a map's own channels is not shown to raise the loss."
    of = "" if len(scores) == len(pairs) else f", undefined for {len(pairs) - len(scores)} more"
    return (
        f"{start}: another layer's matched map closes {median(scores):.2f} of the gap from the own map with channels "
        f"permuted (0) to the own map (1), median of {quantity(len(scores), 'ordered pair')} "
        f"({scores[0]:.2f} to {scores[-1]:.2f}){of}."
    )
