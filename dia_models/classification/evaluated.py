"""A checkpoint's classifier on a data set's images: what it predicts, and how well."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.classification.evaluation import Predictions, predict
from dia_models.data import Batch, ImageSource
from dia_models.data.labels import class_numbers
from dia_models.surgery.fuse import fuse_for_inference
from dia_models.training.machine import in_words
from dia_models.training.scores import Evaluation
from dia_models.words import defined, quantity

Watch = Callable[[Iterable[Batch], int, str], Iterable[Batch]]


@dataclass(frozen=True)
class EvaluatedClassifier:
    """A checkpoint's predictions for images of `data`; `groups` are the images' (patients), empty if not known."""

    checkpoint: Checkpoint
    data: str
    predictions: Predictions
    groups: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The network's classes."""
        return self.checkpoint.info.classes

    @cached_property
    def evaluation(self) -> Evaluation:
        """Accuracies and loss."""
        return self.predictions.evaluation(len(self.classes))

    def to_dict(self) -> dict[str, Any]:
        """The document dia.eval/1, but for its schema."""
        found = self.evaluation
        return {
            **self.checkpoint.origin(),
            "data": self.data,
            "images": found.images,
            "nonfinite": found.nonfinite,
            "accuracy": defined(found.accuracy),
            "per_class_accuracy": dict(zip(self.classes, found.per_class_accuracy, strict=True)),
            "loss": defined(found.loss),
        }

    def diverged(self) -> str | None:
        """What to say of a network that computes no numbers for some of the images; None of any other."""
        found = self.evaluation
        if not found.nonfinite:
            return None
        return (
            f"{self.checkpoint.name}: the network's outputs are not finite for {found.nonfinite} of {found.images} "
            "images: it diverged"
        )

    def summary(self) -> str:
        """Accuracy and loss, and accuracy per class; of a network that diverged only that."""
        if (diverged := self.diverged()) is not None:
            return f"{diverged}, so it has no accuracy"
        found = self.evaluation
        images = quantity(found.images, "image")
        lines = [
            f"{self.checkpoint.name} on {images} of {self.data}: accuracy {found.accuracy:.2%}, loss {found.loss:.3f}",
            f"  precision in training: {in_words(self.checkpoint.info.machine)}",
        ]
        for name, accuracy in zip(self.classes, found.per_class_accuracy, strict=True):
            lines.append(f"  {name:<20} {'no images' if accuracy is None else f'{accuracy:.2%}'}")
        return "\n".join(lines)

    def rows(self) -> Iterator[list[Any]]:
        """A row per image: checkpoint, name, group (empty if not known), label, and the score of each class."""
        found = self.predictions
        scores, groups = found.probabilities().tolist(), self.groups or ("",) * len(found.names)
        for name, group, label, row in zip(found.names, groups, found.labels.tolist(), scores, strict=True):
            yield [self.checkpoint.name, name, group, self.classes[label], *row]


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    source: ImageSource,
    data: str,
    *,
    device: torch.device,
    batch_size: int = 256,
    watch: Watch = lambda batches, count, name: batches,
) -> EvaluatedClassifier:
    """Classify all images of a source; `watch` passes the batches on, given their number and the checkpoint's name.

    Raises ModelInputError for images without labels, and for classes that the network does not know.
    """
    info = checkpoint.info
    labels = class_numbers(source, info.classes, data)
    batches = source.batches(range(len(source)), batch_size, info.preprocessing.size, info.model.in_channels)
    shown = watch(batches, -(-len(source) // batch_size), checkpoint.name)
    relabelled = (replace(batch, labels=labels[batch.labels]) for batch in shown)
    predictions = predict(fuse_for_inference(checkpoint.build()).to(device), relabelled, info.preprocessing, device)
    group_of = source.group_of
    return EvaluatedClassifier(
        checkpoint, data, predictions, tuple(map(group_of, predictions.names)) if group_of else ()
    )
