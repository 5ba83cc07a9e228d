"""How well a network classifies images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from dia_models.checkpoints.checkpoint import CheckpointInfo
from dia_models.data import Batch, MemoryImages, Preprocessing, hold_out
from dia_models.errors import ModelInputError
from dia_models.networks.outputs import scores_in
from dia_models.training.scores import Evaluation


@dataclass(frozen=True)
class Predictions:
    """A network's logits for images by name, on the CPU, and the images' labels."""

    names: tuple[str, ...]
    labels: Int64[Tensor, "image"]
    logits: Float[Tensor, "image class"]

    def probabilities(self) -> Float[Tensor, "image class"]:
        """The softmax of the logits, in float64."""
        return self.logits.double().softmax(1)

    @property
    def positive(self) -> Bool[np.ndarray, "image"]:
        """Which images are of the second of two classes."""
        return np.asarray(self.labels == 1)

    @property
    def scores(self) -> Float[np.ndarray, "image"]:
        """The second class's probabilities."""
        return np.asarray(self.probabilities()[:, 1])

    @property
    def nonfinite(self) -> int:
        """For how many images the network's outputs are not all finite."""
        return int((~self.logits.isfinite().all(1)).sum())

    def evaluation(self, classes: int) -> Evaluation:
        """The scores of all images together; undefined if the network diverged."""
        images = len(self.names)
        if self.nonfinite:
            return Evaluation.undefined(images, classes, self.nonfinite)
        total = torch.bincount(self.labels, minlength=classes)
        right = torch.bincount(self.labels[self.logits.argmax(1) == self.labels], minlength=classes)
        per_class = tuple(r / t if t else None for r, t in zip(right.tolist(), total.tolist(), strict=True))
        loss = float(F.cross_entropy(self.logits.double(), self.labels))
        return Evaluation(images, int(right.sum()) / images, per_class, loss)


def predict(
    model: nn.Module, batches: Iterable[Batch], preprocessing: Preprocessing, device: torch.device
) -> Predictions:
    """Show a network every image, in float32; it is left in evaluation mode.

    Raises ValueError if there is no image.
    """
    model.eval()
    names: list[str] = []
    labels, logits = [], []
    with torch.inference_mode():
        for batch in batches:
            names += batch.names
            labels.append(batch.labels.cpu())
            logits.append(as_logits(model(preprocessing(batch.pixels.to(device)))).cpu())
    if not names:
        raise ValueError("there is no image with a label to evaluate on")
    return Predictions(tuple(names), torch.cat(labels), torch.cat(logits))


def as_logits(output: Any) -> Float[Tensor, "image class"]:
    """A network's class scores, as `scores_in` finds them; a single one z is 0 and z, for two classes.

    Raises ModelInputError if there are none.
    """
    if (found := scores_in(output)) is None:
        raise ModelInputError(
            "model",
            f"it gives a {type(output).__name__} without class scores (image, class)",
        )
    scores = found.float()
    scores = scores[:, None] if scores.ndim == 1 else scores
    return torch.cat([torch.zeros_like(scores), scores], 1) if scores.shape[1] == 1 else scores


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    preprocessing: Preprocessing,
    classes: int,
    device: torch.device,
) -> Evaluation:
    """Classify every image with a label, as `predict` does.

    Raises ValueError if there is no image.
    """
    return predict(model, batches, preprocessing, device).evaluation(classes)


def validation_images(info: CheckpointInfo, train: Callable[[], MemoryImages]) -> MemoryImages | None:
    """The images that a checkpoint's training run held out of its training images for validation, if any.

    The split is made again from the run's seed and its recipe's fraction; `train` gives the training images, as the
    network takes them.
    """
    fraction = info.recipe.get("validation", 0)
    if not isinstance(fraction, int | float) or not fraction:
        return None
    return hold_out(train(), fraction, info.seed)[1]
