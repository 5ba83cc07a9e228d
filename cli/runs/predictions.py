"""Checkpoints tested on a data set's images: their predictions, and for two classes how good a test they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from cli.common.classes import class_numbers
from cli.common.console import note, tracked
from cli.common.grey import warn_of_colour
from cli.common.naming import network_name, read_named
from dia_analysis.results.words import quantity
from dia_analysis.statistics.binary_metrics import best_threshold
from dia_analysis.xray.diagnosis import HALF, NO_PATIENTS, Readings, Threshold, TwoClassResult, assess
from dia_models import Checkpoint, ModelInputError
from dia_models.classification.evaluation import Evaluation, Predictions, held_out, predict
from dia_models.data import FileImages, ImageSource, MemoryImages, open_data
from dia_models.data.chest_xray import CLASSES, TABLE_XI, in_both
from dia_models.factory import blueprint, require_classifier
from dia_models.training.device import choose_device
from dia_models.training.machine import in_words


@dataclass(frozen=True)
class Options:
    """Where images are and how they are read."""

    data_dir: Path | None
    download: bool
    device: str
    batch_size: int
    workers: int
    strict: bool

    def open(self, data: str, split: str) -> ImageSource:
        """Open a data set's part."""
        more: Any = {"workers": self.workers, "strict": self.strict, "download": self.download}
        return open_data(data, split, self.data_dir, **more)


@dataclass(frozen=True)
class Seen:
    """What a network says of some images, and whose they are; `patients` is empty if that is not known."""

    predictions: Predictions
    patients: tuple[str, ...]

    @property
    def positive(self) -> np.ndarray:
        """Which images are of the second class."""
        return np.asarray(self.predictions.labels == 1)

    @property
    def scores(self) -> np.ndarray:
        """The second class's probabilities."""
        return np.asarray(self.predictions.probabilities()[:, 1])


@dataclass(frozen=True)
class Tested:
    """A checkpoint and what it says of the test images; of two classes, also of the images that its run held out."""

    checkpoint: Checkpoint
    data: str
    seen: Seen
    validation: Seen | None = None
    two_class: TwoClassResult | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The network's classes."""
        return self.checkpoint.info.classes

    @property
    def evaluation(self) -> Evaluation:
        """Accuracies and loss."""
        return self.seen.predictions.evaluation(len(self.classes))

    def to_dict(self) -> dict[str, Any]:
        """The document dia.eval/1, but for its schema."""
        found = self.evaluation
        return {
            "checkpoint": self.checkpoint.name,
            "checkpoint_sha256": self.checkpoint.sha256,
            "network": self.checkpoint.info.model.name,
            "training_seed": self.checkpoint.info.seed,
            "machine": None if (machine := self.checkpoint.info.machine) is None else machine.model_dump(),
            "data": self.data,
            "images": found.images,
            "nonfinite": found.nonfinite,
            "accuracy": _plain(found.accuracy),
            "per_class_accuracy": dict(zip(self.classes, found.per_class_accuracy, strict=True)),
            "loss": _plain(found.loss),
            **({} if self.two_class is None else self.two_class.to_dict() | {"paper": self.published()}),
        }

    def published(self) -> dict[str, Any] | None:
        """The paper's accuracies (percent, Table XI) of its ResNet50 with the same attention; None if it has none.

        They are of the data set chest-xray and stand beside the results on no other.
        """
        if (row := self._table_xi()) is None:
            return None
        network, numbers = row
        return {"network": network, "image_size": 224, **dict(zip((*reversed(CLASSES), "all"), numbers, strict=True))}

    def _table_xi(self) -> tuple[str, tuple[float, ...]] | None:
        kind = blueprint(self.checkpoint.info.model).plan.kind
        name = "" if kind is None else kind.name
        if self.data != "chest-xray" or self.classes != CLASSES or name not in TABLE_XI:
            return None
        return "-".join(filter(None, ("ResNet50", name))), TABLE_XI[name]

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
        """Accuracy, per class, and for two classes everything else; of a network that diverged only that."""
        if (diverged := self.diverged()) is not None:
            return f"{diverged}, so it has no accuracy"
        found = self.evaluation
        lines = [
            f"{self.checkpoint.name} on {quantity(found.images, 'image')} of {self.data}: accuracy "
            f"{found.accuracy:.2%}, loss {found.loss:.3f}",
            f"  precision in training: {in_words(self.checkpoint.info.machine)}",
        ]
        for name, accuracy in zip(self.classes, found.per_class_accuracy, strict=True):
            lines.append(f"  {name:<20} {'no images' if accuracy is None else f'{accuracy:.2%}'}")
        return "\n".join(lines if self.two_class is None else [*lines, self.two_class.summary()])


def test_all(ckpts: Sequence[str], data: str | None, options: Options) -> list[Tested]:
    """Test every checkpoint on the same images. Raises ModelInputError for what does not exist or does not fit."""
    checkpoints = read_named(ckpts)
    _check(checkpoints)
    trained_on = {checkpoint.info.data for checkpoint in checkpoints}
    data = data or checkpoints[0].info.data
    source = options.open(data, "test" if data in trained_on else "any")
    warn_of_colour(checkpoints, source, range(len(source)))
    tested = [_test(checkpoint, data, source, options) for checkpoint in checkpoints]
    if isinstance(source, FileImages):
        for name, reason in sorted(source.unreadable.items()):
            note(f"warning: skipped {name}: {reason}")
    return tested


def _check(checkpoints: Sequence[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        require_classifier(checkpoint.info.model.name, "ckpt")
        if checkpoint.info.classes != checkpoints[0].info.classes:
            raise ModelInputError(
                "ckpt",
                f"{checkpoint.name} and {checkpoints[0].name} do not know the same classes; give networks that do",
            )


def _test(checkpoint: Checkpoint, data: str, source: ImageSource, options: Options) -> Tested:
    tested = Tested(checkpoint, data, _see(checkpoint, source, data, options))
    if len(tested.classes) != 2 or tested.seen.predictions.nonfinite:
        return tested
    return _as_two_class(tested, source, options)


def _see(checkpoint: Checkpoint, source: ImageSource, data: str, options: Options) -> Seen:
    info = checkpoint.info
    labels = class_numbers(source, info.classes, data)
    where, size = choose_device(options.device), options.batch_size
    batches = source.batches(range(len(source)), size, info.preprocessing.size, info.model.in_channels)
    shown = tracked(batches, -(-len(source) // size), checkpoint.name)
    relabelled = (replace(batch, labels=labels[batch.labels]) for batch in shown)
    predictions = predict(checkpoint.build().to(where), relabelled, info.preprocessing, where)
    return Seen(predictions, _patients(source, predictions.names))


def _patients(source: ImageSource, names: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(source, FileImages):
        return () if source.group_of is None else tuple(map(source.group_of, names))
    return source.groups or ()


def _as_two_class(tested: Tested, source: ImageSource, options: Options) -> Tested:
    """With the numbers of a two-class test; the threshold is chosen on the validation images of the network's run."""
    checkpoint, seen = tested.checkpoint, tested.seen
    train = _training_images(checkpoint, options)
    held = None if train is None else held_out(checkpoint.info, lambda: _in_memory(checkpoint, options))
    validation = None if held is None else _see(checkpoint, held, checkpoint.info.data, options)
    readings = Readings(
        name=checkpoint.name,
        network=network_name(checkpoint),
        class_names=(tested.classes[0], tested.classes[1]),
        image_names=seen.predictions.names,
        patients=seen.patients or seen.predictions.names,
        labels=seen.positive,
        scores=seen.scores,
        threshold=_threshold(train, validation),
        in_training=_in_training(train, source),
        grouping=(source.grouping if isinstance(source, FileImages) else None) or NO_PATIENTS,
    )
    return replace(tested, validation=validation, two_class=assess(readings))


def _training_images(checkpoint: Checkpoint, options: Options) -> ImageSource | None:
    """The images that the checkpoint was trained on, if they are there."""
    try:
        train = replace(options, download=False, strict=False).open(checkpoint.info.data, "train")
    except ModelInputError:
        return None
    return train if train.classes == checkpoint.info.classes else None


def _in_memory(checkpoint: Checkpoint, options: Options) -> MemoryImages:
    info = checkpoint.info
    return _decoded(info.data, info.preprocessing.size, info.model.in_channels, options)


@lru_cache(maxsize=1)  # the next checkpoint was usually trained on the same images
def _decoded(data: str, size: tuple[int, int], channels: int, options: Options) -> MemoryImages:
    train = replace(options, download=False, strict=False).open(data, "train")
    return train if isinstance(train, MemoryImages) else train.load(size, channels)


def _plain(number: float) -> float | None:
    return None if isnan(number) else number


def _threshold(train: ImageSource | None, validation: Seen | None) -> Threshold:
    if validation is None:
        reason = "the training images are not there to look" if train is None else "the run held out no images"
        return Threshold(HALF, f"not chosen, because {reason}")
    labels = validation.positive
    if labels.all() or not labels.any():
        return Threshold(HALF, "not chosen, because the validation images are all of one class")
    if validation.predictions.nonfinite:
        return Threshold(HALF, "not chosen, because the network's outputs for validation images are not finite")
    groups = f" of {len(set(validation.patients))} patients" if validation.patients else ""
    source = f"the highest balanced accuracy on the {len(labels)} validation images{groups} of the network's own run"
    return Threshold(best_threshold(labels, validation.scores), source)


def _in_training(train: ImageSource | None, source: ImageSource) -> frozenset[str] | None:
    """The patients that also occur in training; None if that is not known."""
    if train is None or not isinstance(source, FileImages) or source.group_of is None:
        return None
    some, others = (map(part.name, range(len(part))) for part in (source, train))
    return in_both(some, others, source.group_of)
