"""The loss whose gradient is measured, chosen by what labels and logits look like."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.targets import as_logits
from dia_analysis.probes.batches import inputs_of, labels_of, targets_of

Loss = Callable[[Any, Any], Tensor]
NEEDED = (
    "labels are needed, since the gradient is of a loss: batches (images, labels), or dicts with both; one class "
    "number an image, from 0, or for several classes at once a row of 0 and 1"
)


def images_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    """What a batch holds. Raises AnalysisInputError for no images, and for labels that are none."""
    images = _images(batch)
    labels = labels_of(batch)
    if labels is None:
        raise AnalysisInputError("data", NEEDED)
    if labels.shape[:1] != images.shape[:1] or labels.ndim > 2:
        raise AnalysisInputError("data", f"labels of {tuple(labels.shape)} for {len(images)} images; {NEEDED}")
    if labels.ndim == 2 or labels.is_floating_point():
        if not ((labels == 0) | (labels == 1)).all():
            raise AnalysisInputError("data", f"labels of {labels.dtype} that are not 0 or 1; {NEEDED}")
    elif labels.min() < 0:
        raise AnalysisInputError("data", f"a label is {int(labels.min())}; {NEEDED}")
    return images, labels


def images_and_targets(batch: Any) -> tuple[Tensor, Any]:
    """What a batch holds for a loss that the caller gives: images, and whatever stands where labels do."""
    return _images(batch), targets_of(batch)


def _images(batch: Any) -> Tensor:
    images = inputs_of(batch)
    if not images.is_floating_point():
        raise AnalysisInputError(
            "data", f"images of {images.dtype} given; give floating-point numbers, prepared as the network expects them"
        )
    if not len(images):
        raise AnalysisInputError("data", "there is a batch without images")
    return images


def given_loss(loss: Loss, output: Any, labels: Any) -> tuple[str, Float[Tensor, ""]]:
    """The batch's loss as the caller computes it, summed, and its name.

    Raises AnalysisInputError for a loss that averages over a batch, and for what is no number or number by image.
    """
    name = getattr(loss, "__name__", type(loss).__name__)
    if getattr(loss, "reduction", None) == "mean":
        raise AnalysisInputError(
            "loss",
            f"{name} gives the mean over a batch, so that gradients depend on how many images it has; give it "
            "reduction='sum' or 'none'",
        )
    found = loss(output, labels)
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise AnalysisInputError(
            "loss",
            f"{name} gives a {type(found).__name__}; give a tensor: one number for each image, or their sum",
        )
    return ("given loss" if name == "<lambda>" else f"loss {name}"), found.sum()


def summed_loss(output: Any, labels: Tensor) -> tuple[str, Float[Tensor, ""]]:
    """The batch's loss, the sum over its images, and what it is called.

    Class numbers and several logits: cross-entropy. One logit z an image (class 1 has the probability sigmoid(z)), or
    a row of 0 and 1 an image, one for each logit: binary cross-entropy, summed over the logits.
    Raises AnalysisInputError for logits and labels that do not fit.
    """
    logits = as_logits(output)
    count = logits.shape[1]
    if len(logits) != len(labels):
        raise AnalysisInputError("model", f"it gives {len(logits)} rows of logits for {len(labels)} images")
    if labels.ndim == 2 or count == 1:
        rows = labels if labels.ndim == 2 else labels[:, None]
        if rows.shape != logits.shape or rows.max() > 1:
            raise AnalysisInputError(
                "data",
                f"labels of {tuple(labels.shape)} up to {int(labels.max())} do not fit logits of "
                f"{tuple(logits.shape)}; give 0 or 1 for each logit",
            )
        return "binary cross-entropy", F.binary_cross_entropy_with_logits(logits, rows.to(logits), reduction="sum")
    if labels.is_floating_point():
        raise AnalysisInputError("data", f"labels of {labels.dtype} for {count} classes; give class numbers, int64")
    if labels.max() >= count:
        raise AnalysisInputError(
            "data", f"label {int(labels.max())} is beyond the network's {count} classes, counted from 0"
        )
    return "cross-entropy", F.cross_entropy(logits, labels.long(), reduction="sum")
