"""A checkpoint's detector on a data set's images: what it finds, and how well."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import torch

from dia_models.checkpoints.checkpoint import Checkpoint
from dia_models.data.detection.scenes import Scenes
from dia_models.detection.average_precision import Detected, DetectionScores, average_precision, detect
from dia_models.errors import ModelInputError, some
from dia_models.training.machine import in_words
from dia_models.words import defined, quantity

LARGEST_BATCH = 16  # images of a detector take much memory
TITLES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP_S", "ap_medium": "AP_M", "ap_large": "AP_L"}
Watch = Callable[[Iterable[list[Detected]], int, str], Iterable[list[Detected]]]


@dataclass(frozen=True)
class EvaluatedDetector:
    """A detector, what it finds in the test images of `data`, and how well."""

    checkpoint: Checkpoint
    data: str
    detected: list[Detected]
    scores: DetectionScores

    def to_dict(self) -> dict[str, Any]:
        """The document dia.eval/1, but for its schema; null where there is no object to find."""
        return {
            **self.checkpoint.origin(),
            "data": self.data,
            "images": self.scores.images,
            **{name: defined(value) for name, value in self.scores.scores.items()},
            "per_class_ap": dict(zip(self._objects(), map(defined, self.scores.per_class_ap), strict=True)),
        }

    def summary(self) -> str:
        """The six numbers in percent, and AP by class."""
        numbers = ", ".join(f"{TITLES[name]} {_percent(value)}" for name, value in self.scores.scores.items())
        images = quantity(self.scores.images, "image")
        lines = [f"{self.checkpoint.name} on {images} of {self.data}, in percent: {numbers}"]
        lines.append(f"  precision in training: {in_words(self.checkpoint.info.machine)}")
        for name, value in zip(self._objects(), self.scores.per_class_ap, strict=True):
            lines.append(f"  {name:<20} {_percent(value)}")
        return "\n".join(lines)

    def _objects(self) -> tuple[str, ...]:
        """The classes without the background."""
        return self.checkpoint.info.classes[1:]

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """A row per box: checkpoint, the image's name, class, score, x1, y1, x2, y2 in pixels."""
        for detected in self.detected:
            found = (detected.found[key].tolist() for key in ("labels", "scores", "boxes"))
            for label, score, box in zip(*found, strict=True):
                kind = self.checkpoint.info.classes[label]
                sides = (round(side, 2) for side in box)
                yield self.checkpoint.name, names[detected.index], kind, round(score, 5), *sides


def evaluate_detector(
    checkpoint: Checkpoint,
    scenes: Scenes,
    data: str,
    *,
    device: torch.device,
    batch_size: int = LARGEST_BATCH,
    watch: Watch = lambda batches, count, name: batches,
) -> EvaluatedDetector:
    """Find the objects in all scenes.

    Args:
        checkpoint: The detector.
        scenes: The images and their objects.
        data: What the data are called.
        device: Where to compute.
        batch_size: Images at a time, at most 16.
        watch: As for `evaluate_classifier`.

    Returns:
        The boxes, and COCO's average precision.

    Raises:
        ModelInputError: For scenes of other classes than the network was trained on.
    """
    classes = checkpoint.info.classes
    if classes != scenes.classes:
        other = f"{some(scenes.classes[1:], 5)} instead of {some(classes[1:], 5)}"
        raise ModelInputError("data", f"{data} has other classes than {checkpoint.name} was trained on: {other}")
    size = min(batch_size, LARGEST_BATCH)
    batches = detect(checkpoint.build().to(device), scenes, size, device)
    detected = [one for batch in watch(batches, -(-len(scenes) // size), checkpoint.name) for one in batch]
    return EvaluatedDetector(checkpoint, data, detected, average_precision(detected, scenes.objects, len(classes)))


def _percent(value: float) -> str:
    return "–" if isnan(value) else f"{100 * value:.1f}"
