"""What is measured of a trained network."""

from dataclasses import dataclass, field
from math import nan
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """Accuracies are fractions of 1, None for a class without images; `loss` is the mean cross-entropy.

    Of a network whose outputs for some images are not finite (`nonfinite` counts these) there are none: all are nan.
    """

    images: int
    accuracy: float
    per_class_accuracy: tuple[float | None, ...]
    loss: float
    nonfinite: int = 0

    @classmethod
    def undefined(cls, images: int, classes: int, nonfinite: int = 0) -> "Evaluation":
        """That of a classifier that computes no numbers for some of the images."""
        return cls(images, nan, (None,) * classes, nan, nonfinite)

    @property
    def scores(self) -> dict[str, float]:
        """What a run's result calls them."""
        return {"test_accuracy": self.accuracy, "test_loss": self.loss}


@dataclass(frozen=True)
class Scores:
    """What was measured of a network that is no classifier, by names that begin with `test_`; nan if undefined.

    `details` say what the scores depend on, for the result's document.
    """

    images: int
    scores: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)


Measured = Evaluation | Scores
