"""A checkpoint's classifier on a data set's images: what it predicts, and how well."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.classification.evaluation import Predictions, predict
from dia_models.classification.held_out import TrainingImages, groups_in_both
from dia_models.data import Batch, ImageSource
from dia_models.data.labels import class_numbers
from dia_models.errors import ModelInputError
from dia_models.surgery.fuse import fuse_for_inference
from dia_models.training.machine import in_words
from dia_models.training.scores import Evaluation
from dia_models.words import defined, quantity

Watch = Callable[[Iterable[Batch], int, str], Iterable[Batch]]


@dataclass(frozen=True)
class EvaluatedClassifier:
    """A checkpoint's predictions for images of `data`; `groups` are the images' (patients), empty if not known.

    Of two classes `evaluate_checkpoints` adds the same on the images that the run held out for `validation`, None where
    `no_validation` says why; and the groups that also occur `in_training`, None if that is not known.
    `more` is what else was found, with a `to_dict` and a `summary` of its own.
    """

    checkpoint: Checkpoint
    data: str
    predictions: Predictions
    groups: tuple[str, ...]
    validation: "EvaluatedClassifier | None" = None
    no_validation: str = ""
    in_training: frozenset[str] | None = None
    more: Any = None

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return self.checkpoint.name

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
            **({} if self.more is None else self.more.to_dict()),
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
        return "\n".join([*lines, *([] if self.more is None else [self.more.summary()])])

    @property
    def heads(self) -> list[str]:
        """What the columns of `rows` are called."""
        return ["checkpoint", "path", "patient", "label", *(f"score_{name}" for name in self.classes)]

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


def evaluate_checkpoints(
    checkpoints: Sequence[Checkpoint],
    source: ImageSource,
    data: str,
    open_train: Callable[[str], ImageSource],
    **how: Any,
) -> list[EvaluatedClassifier]:
    """Classify all images of a source by several networks of the same classes; of two, see what their runs held out.

    `open_train` opens the training part of a data set by name; further arguments are those of `evaluate_checkpoint`.
    Raises ModelInputError as that does, and for networks of different classes.
    """
    first = checkpoints[0]
    for checkpoint in checkpoints:
        if checkpoint.info.classes != first.info.classes:
            message = f"{checkpoint.name} and {first.name} do not know the same classes; give networks that do"
            raise ModelInputError("ckpt", message)
    training = TrainingImages(open_train)
    return [
        _with_held_out(evaluate_checkpoint(each, source, data, **how), source, training, **how) for each in checkpoints
    ]


def _with_held_out(
    found: EvaluatedClassifier, source: ImageSource, training: TrainingImages, **how: Any
) -> EvaluatedClassifier:
    if len(found.classes) != 2 or found.predictions.nonfinite:
        return found
    checkpoint = found.checkpoint
    train, held = training.of(checkpoint), training.validation_images(checkpoint)
    reason = "the training images are not there to look" if train is None else "the run held out no images"
    validation = None if held is None else evaluate_checkpoint(checkpoint, held, checkpoint.info.data, **how)
    return replace(found, validation=validation, no_validation=reason, in_training=groups_in_both(source, train))
