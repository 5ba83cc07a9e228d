"""Attention rollout, plain or weighted by gradients: how much each input token reaches each token of the last layer."""

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
    _check_tokens(layers)
    flow: Float[np.ndarray, "1 token token"] = np.eye(layers[0].shape[-1])[None]
    for layer in layers:
        step = layer.mean(1, dtype=np.float64)
        step = (step / step.sum(-1, keepdims=True) + np.eye(step.shape[-1])) / 2
        flow = step @ flow
    return flow


def gradient_rollout(layers: Sequence[Weights], gradients: Sequence[Weights]) -> Float[np.ndarray, "image token token"]:
    """Relevance: from the identity R, layer by layer R + A R, with A the mean over heads of max(gradient x weight, 0).

    Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers" (ICCV 2021), equations 5 and 6, for self-attention (float64).

    Args:
        layers: Self-attention of each layer (image, head, query, key), in forward order.
        gradients: The gradient of a class's score with respect to each.

    Returns:
        By image, how relevant each token of the input is to each token (row) of the last layer.

    Raises:
        AnalysisInputError: As `rollout`, and for gradients of other shapes.
    """
    _check_tokens(layers)
    if [layer.shape for layer in layers] != [gradient.shape for gradient in gradients]:
        raise AnalysisInputError("gradients", "they need the shapes of the layers; give one for each layer")
    relevance: Float[np.ndarray, "1 token token"] = np.eye(layers[0].shape[-1])[None]
    for layer, gradient in zip(layers, gradients, strict=True):
        relevant = np.maximum(layer.astype(np.float64) * gradient, 0).mean(1)
        relevance = relevance + relevant @ relevance
    return relevance


def _check_tokens(layers: Sequence[Weights]) -> None:
    sizes = {layer.shape[2:] for layer in layers}
    if len(sizes) != 1 or any(queries != keys for queries, keys in sizes):
        shown = ", ".join(f"{queries}x{keys}" for queries, keys in sorted(sizes)) or "none"
        raise AnalysisInputError(
            "rollout", f"it takes layers of one number of tokens, each of them query and key; given: {shown}"
        )
