"""The layer swap as a matrix, to be laid beside that of r: which layer's map stands in for which."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from dia_analysis.ablation.swapping import MATCHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dia_analysis.ablation.results import NetworkAblation

MOST_WRITTEN = 12  # layers up to which the scores stand in the cells


def swap_scores(network: "NetworkAblation") -> Float[np.ndarray, "layer layer"]:
    """Scores of the matched layer swap: rows are the layers replaced, columns those whose map is taken.

    NaN between layers that were not swapped, and where a score is undefined.
    """
    numbers = {(layer.stage, layer.number): i for i, layer in enumerate(network.layers)}
    scores = np.full((len(numbers), len(numbers)), np.nan)
    for one in network.swaps:
        if one.replaced_by == MATCHED and one.stage is not None and one.by_layer is not None and one.swap_score:
            scores[one.layers[0], numbers[one.stage, one.by_layer]] = one.swap_score.value
    return scores


def has_scores(network: "NetworkAblation") -> bool:
    """Whether any score is defined."""
    return not bool(np.isnan(swap_scores(network)).all())


def draw_swaps(network: "NetworkAblation", ax: "Axes") -> None:
    """Draw the scores: 0 as with the own map's channels permuted, 1 as with the own map; empty where undefined."""
    scores = swap_scores(network)
    ax.imshow(scores, vmin=0, vmax=1, cmap="viridis")
    if len(scores) <= MOST_WRITTEN:
        for i, j in np.argwhere(~np.isnan(scores)):
            color = "white" if scores[i, j] < 0.6 else "black"
            ax.text(j, i, f"{scores[i, j]:.1f}", ha="center", va="center", fontsize=6, color=color)
    names = [f"{layer.stage}.{layer.number}" for layer in network.layers]
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("map taken from layer (stage.layer)")
    ax.set_ylabel("map of layer replaced")
    ax.set_title(f"{network.name}\nscore of the layer swap")
