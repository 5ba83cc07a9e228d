"""A classifier on a data set's images: what it predicts, and how well."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from dia_models.classification.evaluation import Predictions, predict
from dia_models.classification.held_out import TrainingImages, groups_in_both
from dia_models.data import Batch, ImageSource
from dia_models.data.labels import class_numbers, numbered
from dia_models.errors import ModelInputError
from dia_models.networks.opened import OpenedNetwork
from dia_models.surgery.fuse import fuse_for_inference
from dia_models.training.machine import in_words
from dia_models.training.scores import Evaluation
from dia_models.words import defined, quantity

LISTED = 20  # classes; of more, those without images are left out of the text
Watch = Callable[[Iterable[Batch], int, str], Iterable[Batch]]


@dataclass(frozen=True)
class EvaluatedClassifier:
    """A network's predictions for images of `data`; `groups` are the images' (patients), empty if not known.

    Of two classes `evaluate_classifiers` adds the same on the images that the run held out for `validation`, None where
    `no_validation` says why; and the groups that also occur `in_training`, None if that is not known.
    `more` is what else was found, with a `to_dict` and a `summary` of its own.
    """

    network: OpenedNetwork
    data: str
    predictions: Predictions
    groups: tuple[str, ...]
    validation: "EvaluatedClassifier | None" = None
    no_validation: str = ""
    in_training: frozenset[str] | None = None
    more: Any = None

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The network's classes; their numbers if they have no names."""
        return self.network.outputs.words

    @cached_property
    def evaluation(self) -> Evaluation:
        """Accuracies and loss."""
        return self.predictions.evaluation(len(self.classes))

    def to_dict(self) -> dict[str, Any]:
        """The document dia.eval/1, but for its schema."""
        found = self.evaluation
        return {
            **self.network.origin(),
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
            f"{self.name}: the network's outputs are not finite for {found.nonfinite} of {found.images} "
            "images: it diverged"
        )

    def summary(self) -> str:
        """Accuracy and loss, and accuracy per class; of a network that diverged only that."""
        if (diverged := self.diverged()) is not None:
            return f"{diverged}, so it has no accuracy"
        found = self.evaluation
        images = quantity(found.images, "image")
        lines = [
            f"{self.name} on {images} of {self.data}: accuracy {found.accuracy:.2%}, loss {found.loss:.3f}",
        ]
        lines += self.network.remarks()
        if self.network.checkpoint is not None:
            lines.append(f"  precision in training: {in_words(self.network.checkpoint.info.machine)}")
        accuracies = list(zip(self.classes, found.per_class_accuracy, strict=True))
        for name, accuracy in [a for a in accuracies if len(accuracies) <= LISTED or a[1] is not None]:
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
            yield [self.name, name, group, self.classes[label], *row]


def evaluate_classifier(
    network: OpenedNetwork,
    source: ImageSource,
    data: str,
    *,
    device: torch.device,
    batch_size: int = 256,
    watch: Watch = lambda batches, count, name: batches,
) -> EvaluatedClassifier:
    """Classify all images of a source that have a label.

    Args:
        network: The network, as `open_network` gives it.
        source: The images, as `open_data` gives them.
        data: What the data are called.
        device: Where to compute.
        batch_size: Images at a time.
        watch: Passes the batches on, given their number and the network's name.

    Returns:
        The predictions, accuracies and loss.

    Raises:
        ModelInputError: For a network that gives no class scores, if no image has a label, and for classes that the
            network does not know.
    """
    shown, numbers = network.preprocessing, class_numbers(source, network.outputs, data)
    batches = source.batches(range(len(source)), batch_size, shown.framing, len(shown.mean))
    watched = watch(batches, -(-len(source) // batch_size), network.name)
    model = fuse_for_inference(network.model) if network.spec is not None else network.model
    predictions = predict(model.to(device), _labelled(watched, numbers, data), shown, device)
    group_of = source.group_of
    return EvaluatedClassifier(network, data, predictions, tuple(map(group_of, predictions.names)) if group_of else ())


def _labelled(batches: Iterable[Batch], numbers: Int64[Tensor, "class"], data: str) -> Iterator[Batch]:
    """Those images that have a label, with the network's numbers of their classes."""
    some = False
    for batch in batches:
        if batch.labels.ndim > 1:
            raise ModelInputError("data", f"the labels of {data} are rows of 0 and 1; here each image needs one class")
        labels = numbered(batch.labels, numbers, data)
        kept = (labels >= 0).nonzero().flatten()
        if len(kept):
            some = True
            names = tuple(batch.names[i] for i in kept.tolist())
            yield Batch(batch.pixels[kept], labels[kept], names)
    if not some:
        raise ModelInputError("data", f"no image of {data} has a label")


def evaluate_classifiers(
    networks: Sequence[OpenedNetwork],
    source: ImageSource,
    data: str,
    open_train: Callable[[str], ImageSource],
    **how: Any,
) -> list[EvaluatedClassifier]:
    """Classify all images of a source by several networks of the same classes; of two, see what their runs held out.

    `open_train` opens the training part of a data set by name; further arguments are those of `evaluate_classifier`.
    Raises ModelInputError as that does, and for networks of different classes.
    """
    first = networks[0]
    for network in networks:
        if network.outputs.words != first.outputs.words:
            message = f"{network.name} and {first.name} do not know the same classes; give networks that do"
            raise ModelInputError("ckpt", message)
    training = TrainingImages(open_train)
    return [
        _with_held_out(evaluate_classifier(each, source, data, **how), source, training, **how) for each in networks
    ]


def _with_held_out(
    found: EvaluatedClassifier, source: ImageSource, training: TrainingImages, **how: Any
) -> EvaluatedClassifier:
    if len(found.classes) != 2 or found.predictions.nonfinite:
        return found
    if (checkpoint := found.network.checkpoint) is None:
        return replace(found, no_validation="the training images are not known")
    train, held = training.of(checkpoint), training.validation_images(checkpoint)
    reason = "the training images are not there to look" if train is None else "the run held out no images"
    validation = None if held is None else evaluate_classifier(found.network, held, checkpoint.info.data, **how)
    return replace(found, validation=validation, no_validation=reason, in_training=groups_in_both(source, train))
