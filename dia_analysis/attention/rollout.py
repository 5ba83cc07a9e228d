"""Attention rollout: how much each token of the input reaches each token of the last layer."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dia_analysis.errors import AnalysisInputError

Weights = Float[np.ndarray, "image head token token"]


def rollout(layers: Sequence[Weights]) -> Float[np.ndarray, "image token token"]:
    """The product over the layers of (mean over heads + identity) / 2, rows the last layer's tokens (float64).

    The identity stands for the residual connection. Abnar and Zuidema, "Quantifying Attention Flow in Transformers"
    (ACL 2020), section 3.

    Args:
        layers: Self-attention of each layer (image, head, query, key), in forward order.

    Returns:
        By image, how much each token (row) draws on each token of the input.

    Raises:
        AnalysisInputError: If there is none, or the layers do not all map the same tokens to themselves.
    """
    sizes = {layer.shape[2:] for layer in layers}
    if len(sizes) != 1 or any(queries != keys for queries, keys in sizes):
        shown = ", ".join(f"{queries}x{keys}" for queries, keys in sorted(sizes)) or "none"
        raise AnalysisInputError(
            "rollout", f"it takes layers of one number of tokens, each of them query and key; given: {shown}"
        )
    flow: Float[np.ndarray, "1 token token"] = np.eye(layers[0].shape[-1])[None]
    for layer in layers:
        step = layer.mean(1, dtype=np.float64)
        step = (step / step.sum(-1, keepdims=True) + np.eye(step.shape[-1])) / 2
        flow = step @ flow
    return flow
