"""How well a network classifies images."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from dia_models.data import Batch, Preprocessing


@dataclass(frozen=True)
class Evaluation:
    """Accuracies are fractions of 1, None for a class without images; `loss` is the mean cross-entropy."""

    images: int
    accuracy: float
    per_class_accuracy: tuple[float | None, ...]
    loss: float


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    preprocessing: Preprocessing,
    classes: int,
    device: torch.device,
) -> Evaluation:
    """Classify every image with a label, in float32; the network is left in evaluation mode.

    Raises ValueError if no image has a label.
    """
    model.eval()
    right, total, loss = torch.zeros(classes), torch.zeros(classes), 0.0
    with torch.inference_mode():
        for batch in batches:
            labels = batch.labels.to(device)
            logits = model(preprocessing(batch.pixels.to(device))).float()
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            hits = (logits.argmax(1) == labels).cpu()
            total += torch.bincount(batch.labels, minlength=classes)
            right += torch.bincount(batch.labels[hits], minlength=classes)
    images = int(total.sum())
    if images == 0:
        raise ValueError("there is no image with a label to evaluate on")
    per_class = tuple(r / t if t else None for r, t in zip(right.tolist(), total.tolist(), strict=True))
    return Evaluation(images, float(right.sum() / images), per_class, loss / images)
