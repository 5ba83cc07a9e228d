"""One network, or several, as a two-class test: with and without patients it may have seen, at two thresholds."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dia_analysis.diagnostics import (
    METRICS,
    RESAMPLES,
    Comparison,
    Diagnosis,
    Estimate,
    Labels,
    Scores,
    compare,
    diagnose,
)
from dia_analysis.errors import AnalysisInputError

HALF = 0.5  # the class with the higher score wins, as for accuracy everywhere else
NO_PATIENTS = "patients are not known, so every image counts as a patient of its own"
SPREAD = ("accuracy", "auroc", "balanced_accuracy", "sensitivity", "specificity")
COMPARED = tuple(name for name in SPREAD if name != "auroc")


@dataclass(frozen=True)
class Threshold:
    """A score from which an image counts as positive, and how it came about, in words."""

    value: float
    source: str


@dataclass(frozen=True)
class Readings:
    """One network's scores for the positive class: of the `classes` (negative, positive) the second.

    `network` is the same for networks that differ in their training's seed only. `in_training` are the patients
    whose id also occurs in the training images; None where these are not there to look.
    """

    name: str
    network: str
    classes: tuple[str, str]
    images: tuple[str, ...]
    patients: tuple[str, ...]
    labels: Labels
    scores: Scores
    threshold: Threshold
    in_training: frozenset[str] | None = None
    grouping: str = NO_PATIENTS

    @property
    def unseen(self) -> Bool[np.ndarray, "image"]:
        """Which images are of patients that do not occur in training."""
        return np.array([patient not in (self.in_training or ()) for patient in self.patients])

    def take(
        self, chosen: Bool[np.ndarray, "image"]
    ) -> tuple[Bool[np.ndarray, "some"], Float[np.ndarray, "some"], list[str]]:
        """Labels, scores and patients of some of the images."""
        return self.labels[chosen], self.scores[chosen], [self.patients[i] for i in np.flatnonzero(chosen)]


def by_patient(readings: Readings) -> Readings:
    """One score a patient, the mean over the patient's images; a patient with any positive image is positive."""
    names, owner = np.unique(np.asarray(readings.patients), return_inverse=True)
    scores = np.bincount(owner, readings.scores) / np.bincount(owner)
    patients = tuple(names.tolist())
    labels = np.bincount(owner, readings.labels) > 0
    return replace(readings, images=patients, patients=patients, labels=labels, scores=scores)


@dataclass(frozen=True)
class Pair:
    """The same images judged at 0.5 and at the threshold that was chosen."""

    half: Diagnosis
    chosen: Diagnosis

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"at_0.5": self.half.to_dict(), "at_chosen_threshold": self.chosen.to_dict()}

    def table(self) -> Iterator[str]:
        """A line per number, both thresholds side by side."""
        heads = [f"threshold {d.threshold:.3f}" for d in (self.half, self.chosen)]
        yield f"  {'':<18} {heads[0]:<24} {heads[1]}"
        for name in ("accuracy", "accuracy_wilson", *METRICS[1:]):
            label = {"accuracy_wilson": "accuracy (Wilson)"}.get(name, name.replace("_", " "))
            yield f"  {label:<18} {getattr(self.half, name).text():<24} {getattr(self.chosen, name).text()}"


@dataclass(frozen=True)
class TwoClassResult:
    """How good a network is as a two-class test.

    `everyone` is over all images; `unseen` leaves out images of patients whose id also occurs in training, and is
    None if there are none of these, or nothing else, or if it is not known.
    """

    readings: Readings
    everyone: Pair
    unseen: Pair | None

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        positives = int(self.readings.labels.sum())
        return dict(zip(self.readings.classes, (len(self.readings.labels) - positives, positives), strict=True))

    @property
    def majority_accuracy(self) -> float:
        """The accuracy of always naming the more frequent class."""
        return max(self.counts.values()) / len(self.readings.labels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the numbers at 0.5 on top, where accuracy belongs; the others named."""
        half = self.everyone.half.to_dict()
        accuracy = half.pop("accuracy")
        left = self.left_out
        return {
            "positive": self.readings.classes[1],
            "class_images": self.counts,
            "majority_accuracy": self.majority_accuracy,
            "grouping": self.readings.grouping,
            **half,
            "accuracy_bootstrap": accuracy,
            "chosen_threshold": {"value": self.readings.threshold.value, "source": self.readings.threshold.source},
            "at_chosen_threshold": self.everyone.chosen.to_dict(),
            "patients_in_training": None if left is None else {"patients": left[0], "images": left[1]},
            "without_patients_in_training": None if self.unseen is None else self.unseen.to_dict(),
        }

    @property
    def left_out(self) -> tuple[int, int] | None:
        """How many patients occur in training as well, and their images; None if that is not known."""
        if self.readings.in_training is None:
            return None
        seen = {patient for patient in self.readings.patients if patient in self.readings.in_training}
        return len(seen), int((~self.readings.unseen).sum())

    def summary(self) -> str:
        """Everything, in words and two tables."""
        readings, everyone = self.readings, self.everyone.half
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        lines = [
            f"{everyone.images} images of {everyone.patients} patients: {counts}; positive is {readings.classes[1]}. "
            f"Always naming the more frequent class would be right for {self.majority_accuracy:.1%}.",
            f"Patients: {readings.grouping}.",
            f"Threshold: {readings.threshold.value:.3f}: {readings.threshold.source}.",
            *self.everyone.table(),
            self.overlap(),
            *(() if self.unseen is None else self.unseen.table()),
            f"Intervals are at 95 %, from {everyone.resamples} bootstrap samples of patients.",
        ]
        return "\n".join(lines)

    def overlap(self) -> str:
        """What is known of patients that occur in training as well, in a sentence."""
        if self.left_out is None:
            return "Whether patients of these images also occur in training is not known."
        patients, images = self.left_out
        if not patients:
            return "No patient id of these images occurs in training."
        rest = "that leaves none" if self.unseen is None else _about(self.unseen.half)
        return (
            f"Without the {images} images of {patients} patients whose id also occurs in training (whether they are "
            f"the same people is not known): {rest}"
        )


def assess(readings: Readings, *, resamples: int = RESAMPLES, seed: int = 0) -> TwoClassResult:
    """Judge a network's readings. Raises AnalysisInputError as `diagnose` does."""

    def pair(chosen: Bool[np.ndarray, "image"]) -> Pair:
        given = readings.take(chosen)
        at = (HALF, readings.threshold.value)
        return Pair(*(diagnose(*given, threshold=value, resamples=resamples, seed=seed) for value in at))

    unseen = readings.unseen
    everyone = pair(np.ones(len(unseen), dtype=bool))
    return TwoClassResult(readings, everyone, pair(unseen) if unseen.any() and not unseen.all() else None)


@dataclass(frozen=True)
class PairedTest:
    """How the first of two networks differs from the second, at 0.5 and at each one's chosen threshold."""

    first: str
    second: str
    half: Comparison
    chosen: Comparison

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        at = {"at_0.5": self.half.to_dict(), "at_chosen_threshold": self.chosen.to_dict()}
        return {"first": self.first, "second": self.second, **at}

    def summary(self) -> str:
        """The differences and McNemar's p, in lines."""
        lines = [f"{self.first} minus {self.second}: AUROC {_signed(self.half.auroc_difference)}"]
        for head, found in (("threshold 0.5", self.half), ("chosen thresholds", self.chosen)):
            lines.append(
                f"  {head}: accuracy {_signed(found.accuracy_difference)}; only one of them is right: "
                f"{found.only_first} and {found.only_second} images, McNemar's exact p = {found.mcnemar_p:.3g}"
            )
        return "\n".join(lines)


def compare_all(results: Sequence[TwoClassResult], *, resamples: int = RESAMPLES, seed: int = 0) -> list[PairedTest]:
    """Compare each two networks on the same images. Raises AnalysisInputError if the images or labels differ."""
    for result in results[1:]:
        one, other = results[0].readings, result.readings
        if one.images != other.images or not np.array_equal(one.labels, other.labels):
            raise AnalysisInputError("data", f"{one.name} and {other.name} were not given the same images and classes")
    return [_paired(a.readings, b.readings, resamples, seed) for a, b in combinations(results, 2)]


def _paired(a: Readings, b: Readings, resamples: int, seed: int) -> PairedTest:
    at = ((HALF, HALF), (a.threshold.value, b.threshold.value))
    found = (
        compare(a.labels, (a.scores, one), (b.scores, other), a.patients, resamples=resamples, seed=seed)
        for one, other in at
    )
    return PairedTest(a.name, b.name, *found)


@dataclass(frozen=True)
class SeedSpread:
    """Mean and standard deviation over training runs of one network, at 0.5 and at the chosen thresholds."""

    network: str
    names: tuple[str, ...]
    half: dict[str, tuple[float, float]]
    chosen: dict[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not defined is null."""
        at = {"at_0.5": self.half, "at_chosen_threshold": self.chosen}
        spreads = {key: {name: _plain(found) for name, found in numbers.items()} for key, numbers in at.items()}
        return {"network": self.network, "checkpoints": list(self.names), **spreads}

    def summary(self) -> str:
        """A line."""
        half, chosen = (
            ", ".join(f"{name.replace('_', ' ')} {numbers[name][0]:.3f} ± {numbers[name][1]:.3f}" for name in names)
            for numbers, names in ((self.half, SPREAD), (self.chosen, COMPARED))
        )
        return (
            f"{self.network}, {len(self.names)} runs, mean ± standard deviation: {half}; at chosen thresholds: {chosen}"
        )


def over_seeds(results: Sequence[TwoClassResult]) -> list[SeedSpread]:
    """The spread over training runs, of each network of which there are at least two."""
    groups: defaultdict[str, list[TwoClassResult]] = defaultdict(list)
    for result in results:
        groups[result.readings.network].append(result)
    return [_spread(network, members) for network, members in groups.items() if len(members) > 1]


def _spread(network: str, members: Sequence[TwoClassResult]) -> SeedSpread:
    def numbers(diagnoses: Sequence[Diagnosis]) -> dict[str, tuple[float, float]]:
        values = {name: [getattr(d, name).value for d in diagnoses] for name in SPREAD}
        return {name: (float(np.mean(v)), float(np.std(v, ddof=1))) for name, v in values.items()}

    names = tuple(member.readings.name for member in members)
    half, chosen = numbers([m.everyone.half for m in members]), numbers([m.everyone.chosen for m in members])
    return SeedSpread(network, names, half, chosen)


def table(results: Sequence[TwoClassResult]) -> str:
    """Several networks side by side: a line each, at 0.5 and at the chosen threshold."""
    width = max(len(result.readings.name) for result in results)
    heads = "  ".join(f"{name.replace('_', ' '):<22}" for name in SPREAD)
    lines = [f"{'':<{width}}  threshold  {heads}".rstrip()]
    for result in results:
        for found in (result.everyone.half, result.everyone.chosen):
            cells = "  ".join(f"{getattr(found, name).text():<22}" for name in SPREAD)
            lines.append(f"{result.readings.name:<{width}}  {found.threshold:<9.3f}  {cells}".rstrip())
    return "\n".join(lines)


def _about(found: Diagnosis) -> str:
    return f"{found.images} images of {found.patients} patients, {found.positives} positive"


def _signed(found: Estimate) -> str:
    return "not defined" if np.isnan(found.value) else f"{found.value:+.3f} {found.interval()}"


def _plain(found: tuple[float, float]) -> dict[str, float | None]:
    return {key: None if np.isnan(v) else v for key, v in zip(("mean", "std"), found, strict=True)}
