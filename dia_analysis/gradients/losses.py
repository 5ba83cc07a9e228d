"""The loss whose gradient is measured, chosen by what labels and logits look like."""

from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.targets import as_logits
from dia_analysis.probes.batches import inputs_of, labels_of

LossName = Literal["cross-entropy", "binary cross-entropy"]
NEEDED = (
    "labels are needed, since the gradient is of a loss: batches (images, labels), or dicts with both; one class "
    "number an image, from 0, or for several classes at once a row of 0 and 1"
)


def images_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    """What a batch holds. Raises AnalysisInputError for no images, and for labels that are none."""
    images = inputs_of(batch)
    labels = labels_of(batch)
    if labels is None:
        raise AnalysisInputError("data", NEEDED)
    if not images.is_floating_point():
        raise AnalysisInputError(
            "data", f"images of {images.dtype} given; give floating-point numbers, prepared as the network expects them"
        )
    if not len(images):
        raise AnalysisInputError("data", "there is a batch without images")
    if labels.shape[:1] != images.shape[:1] or labels.ndim > 2:
        raise AnalysisInputError("data", f"labels of {tuple(labels.shape)} for {len(images)} images; {NEEDED}")
    if labels.ndim == 2 or labels.is_floating_point():
        if not ((labels == 0) | (labels == 1)).all():
            raise AnalysisInputError("data", f"labels of {labels.dtype} that are not 0 or 1; {NEEDED}")
    elif labels.min() < 0:
        raise AnalysisInputError("data", f"a label is {int(labels.min())}; {NEEDED}")
    return images, labels


def summed_loss(output: Any, labels: Tensor) -> tuple[LossName, Float[Tensor, ""]]:
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
