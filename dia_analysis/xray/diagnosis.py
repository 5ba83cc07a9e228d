"""One network, or several, as a two-class test: with and without patients it may have seen, at two thresholds."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from dia_analysis.errors import AnalysisInputError
from dia_analysis.results.base import Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.words import quantity
from dia_analysis.statistics.binary_metrics import (
    LABELS,
    RESAMPLES,
    Comparison,
    Diagnosis,
    Labels,
    Scores,
    best_threshold,
    compare,
    diagnose,
)
from dia_analysis.statistics.intervals import Estimate
from dia_analysis.statistics.significance import holm

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

HALF = 0.5  # the class with the higher score wins, as for accuracy everywhere else
NO_PATIENTS = "no patient IDs; each image is treated as one patient"
SPREAD = ("accuracy", "auroc", "balanced_accuracy", "sensitivity", "specificity")
COMPARED = tuple(name for name in SPREAD if name != "auroc")
HOW = "95 % intervals are over patients, Wilson's on the number of independent images that theirs are worth."


@dataclass(frozen=True)
class Threshold:
    """A score from which an image counts as positive, and how it came about, in words."""

    value: float
    source: str


@dataclass(frozen=True)
class Readings:
    """One network's scores for the positive class: of the `class_names` (negative, positive) the second.

    `network` is the same for networks that differ in their training's seed only. `in_training` are the patients
    whose id also occurs in the training images; None where these are not there to look.
    `image_size` is (height, width).
    """

    name: str
    network: str
    class_names: tuple[str, str]
    image_names: tuple[str, ...]
    patients: tuple[str, ...]
    labels: Labels
    scores: Scores
    threshold: Threshold
    in_training: frozenset[str] | None = None
    grouping: str = NO_PATIENTS
    image_size: tuple[int, int] | None = None

    @property
    def unseen(self) -> Bool[np.ndarray, "image"]:
        """Which images are of patients that do not occur in training."""
        return np.array([patient not in (self.in_training or ()) for patient in self.patients])

    def take(
        self, chosen: Bool[np.ndarray, "image"]
    ) -> tuple[Bool[np.ndarray, "some"], Float[np.ndarray, "some"], list[str]]:
        """Labels, scores and patients of some of the images."""
        return self.labels[chosen], self.scores[chosen], [self.patients[i] for i in np.flatnonzero(chosen)]


def choose_threshold(labels: Labels, scores: Scores, patients: Sequence[str] = ()) -> Threshold:
    """The threshold of the highest balanced accuracy on validation images, or 0.5 where that cannot be found."""
    if labels.all() or not labels.any():
        return Threshold(HALF, "not chosen, because the validation images are all of one class")
    if not np.isfinite(scores).all():
        return Threshold(HALF, "not chosen, because the network's outputs for validation images are not finite")
    groups = f" of {len(set(patients))} patients" if patients else ""
    source = f"the highest balanced accuracy on the {len(labels)} validation images{groups} of the network's own run"
    return Threshold(best_threshold(labels, scores), source)


def by_patient(readings: Readings) -> Readings:
    """One score a patient, the mean over the patient's images; a patient with any positive image is positive."""
    names, owner = np.unique(np.asarray(readings.patients), return_inverse=True)
    scores = np.bincount(owner, readings.scores) / np.bincount(owner)
    patients = tuple(names.tolist())
    labels = np.bincount(owner, readings.labels) > 0
    return replace(readings, image_names=patients, patients=patients, labels=labels, scores=scores)


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
        half, chosen = self.half.rows(), self.chosen.rows()
        width = max(map(len, half.values()))
        yield f"  {'':<18} {f'threshold {self.half.threshold:.3f}':<{width}}  threshold {self.chosen.threshold:.3f}"
        for label, text in half.items():
            yield f"  {label:<18} {text:<{width}}  {chosen[label]}"

    def remarks(self) -> list[str]:
        """What a reader must know to read the numbers, in sentences."""
        return list(dict.fromkeys([*self.half.remarks(), *self.chosen.remarks()]))


@dataclass(frozen=True, repr=False)
class TwoClassResult(Result):
    """How good a network is as a two-class test.

    `everyone` is over all images; `unseen` leaves out images of patients whose id also occurs in training, and is
    None if there are none of these, or nothing else, or if it is not known. `paper` are the accuracies that the paper
    prints of such a network, if it does (`dia_analysis.paper.table_xi.published_accuracy`).
    """

    file = "two_class"
    readings: Readings
    everyone: Pair
    unseen: Pair | None
    paper: Mapping[str, Any] | None = None
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        positives = int(self.readings.labels.sum())
        return dict(zip(self.readings.class_names, (len(self.readings.labels) - positives, positives), strict=True))

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
            "positive": self.readings.class_names[1],
            "class_images": self.counts,
            "majority_accuracy": self.majority_accuracy,
            "grouping": self.readings.grouping,
            **half,
            "accuracy_interval": accuracy,
            "chosen_threshold": {"value": self.readings.threshold.value, "source": self.readings.threshold.source},
            "at_chosen_threshold": self.everyone.chosen.to_dict(),
            "patients_in_training": None if left is None else {"patients": left[0], "images": left[1]},
            "without_patients_in_training": None if self.unseen is None else self.unseen.to_dict(),
            "paper": None if self.paper is None else dict(self.paper),
        }

    def datasets(self) -> "dict[str, xr.Dataset]":
        """By image: score, whether it is positive, patient."""
        import xarray as xr

        given = self.readings
        arrays = {"score": given.scores, "positive": given.labels, "patient": list(given.patients)}
        image = {"image": list(given.image_names)}
        return {self.file: xr.Dataset({name: ("image", values) for name, values in arrays.items()}, coords=image)}

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each image: score, whether it is positive, patient."""
        return long_form([({}, self.datasets()[self.file])], "score", "positive", "patient")

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The ROC curve; images of one class have none."""
        return [self._draw] if 0 < self.readings.labels.sum() < len(self.readings.labels) else []

    def _draw(self, ax: "Axes") -> None:
        labels, scores = self.readings.labels, self.readings.scores
        cuts = np.concatenate([[np.inf], np.unique(scores)[::-1]])
        ends = [((scores[~labels] >= cut).mean(), (scores[labels] >= cut).mean()) for cut in cuts]
        ax.plot(*zip(*ends, strict=True), label=f"{self.readings.name}, AUROC {self.everyone.half.auroc.text()}")
        ax.plot([0, 1], [0, 1], color="0.6", lw=0.8, label="chance")
        for found, marker in ((self.everyone.half, "o"), (self.everyone.chosen, "s")):
            place = (1 - found.specificity.value, found.sensitivity.value)
            ax.plot(*place, marker, ms=4, color="C1", label=f"threshold {found.threshold:.3f}")
        ax.set(xlabel="1 - specificity", ylabel="Sensitivity", aspect="equal")
        ax.legend(loc="lower right")

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
            f"{quantity(everyone.images, 'image')} of {quantity(everyone.patients, 'patient')}: {counts}; positive is "
            f"{readings.class_names[1]}. "
            f"Always naming the more frequent class would be right for {self.majority_accuracy:.1%}.",
            f"Patients: {readings.grouping}.",
            f"Threshold: {readings.threshold.value:.3f}: {readings.threshold.source}.",
            *self.everyone.table(),
            *self.everyone.remarks(),
            self.overlap(),
            *(() if self.unseen is None else [*self.unseen.table(), *self.unseen.remarks()]),
            HOW,
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
            f"Without the {quantity(images, 'image')} of {quantity(patients, 'patient')} whose id also occurs in "
            f"training (whether they are the same people is not known): {rest}"
        )


def assess(readings: Readings, *, resamples: int = RESAMPLES, seed: int = 0, **about: Any) -> TwoClassResult:
    """Judge a network's readings; `about` are `paper` and `provenance`. Raises AnalysisInputError as `diagnose`."""

    def pair(chosen: Bool[np.ndarray, "image"]) -> Pair:
        given = readings.take(chosen)
        at = (HALF, readings.threshold.value)
        return Pair(*(diagnose(*given, threshold=value, resamples=resamples, seed=seed) for value in at))

    unseen = readings.unseen
    everyone = pair(np.ones(len(unseen), dtype=bool))
    others = pair(unseen) if unseen.any() and not unseen.all() else None
    return TwoClassResult(readings, everyone, others, **about)


@dataclass(frozen=True)
class PairedTest:
    """How the first of two networks differs from the second, at 0.5 and at each one's chosen threshold.

    `corrected` are the p-values of AUROC and of McNemar's test at both thresholds, corrected by Holm's method for all
    `tests` of the networks that were compared together; NaN for what is no test.
    """

    first: str
    second: str
    half: Comparison
    chosen: Comparison
    corrected: tuple[float, float, float]
    tests: int

    @property
    def p_values(self) -> tuple[float, float, float]:
        """Of AUROC, and of McNemar's test at both thresholds."""
        return _p_values(self.half, self.chosen)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        at = {"at_0.5": self.half.to_dict(), "at_chosen_threshold": self.chosen.to_dict()}
        auroc, half, chosen = (None if np.isnan(p) else p for p in self.corrected)
        holm_p = {"tests": self.tests, "auroc_p": auroc, "at_0.5": half, "at_chosen_threshold": chosen}
        return {"first": self.first, "second": self.second, **at, "holm": holm_p}

    def summary(self) -> str:
        """The differences and their p-values, in lines."""
        auroc, *accuracies = (_tested(p, c) for p, c in zip(self.p_values, self.corrected, strict=True))
        lines = [f"{self.first} minus {self.second}: AUROC {_signed(self.half.auroc_difference)}, {auroc}"]
        parts = (("threshold 0.5", self.half), ("chosen thresholds", self.chosen))
        for (head, found), tested in zip(parts, accuracies, strict=True):
            lines.append(
                f"  {head}: accuracy {_signed(found.accuracy_difference)}; only one of them is right: "
                f"{found.only_first} and {found.only_second} images, McNemar's exact {tested}"
            )
        return "\n".join(lines)


def about_tests(found: Sequence[PairedTest]) -> str:
    """How the p-values of paired tests are to be read, in a sentence."""
    tests = found[0].tests
    return (
        f"p: of the test alone, then corrected by Holm's method for the {tests} {'test' if tests == 1 else 'tests'} "
        "listed here. McNemar's takes images as independent; the intervals and the test of AUROC are over patients."
    )


def compare_all(results: Sequence[TwoClassResult]) -> list[PairedTest]:
    """Compare each two networks on the same images. Raises AnalysisInputError if the images or labels differ."""
    for result in results[1:]:
        one, other = results[0].readings, result.readings
        if one.image_names != other.image_names or not np.array_equal(one.labels, other.labels):
            raise AnalysisInputError("data", f"{one.name} and {other.name} were not given the same images and classes")
    pairs = list(combinations([result.readings for result in results], 2))
    found = [_compared(a, b) for a, b in pairs]
    p = [_p_values(*each) for each in found]
    corrected = np.reshape(holm([value for each in p for value in each]), (-1, 3))
    tests = int((~np.isnan(corrected)).sum())
    return [
        PairedTest(a.name, b.name, *each, (float(row[0]), float(row[1]), float(row[2])), tests)
        for (a, b), each, row in zip(pairs, found, corrected, strict=True)
    ]


def _compared(a: Readings, b: Readings) -> tuple[Comparison, Comparison]:
    at = ((HALF, HALF), (a.threshold.value, b.threshold.value))
    half, chosen = (compare(a.labels, (a.scores, one), (b.scores, other), a.patients) for one, other in at)
    return half, chosen


def _p_values(half: Comparison, chosen: Comparison) -> tuple[float, float, float]:
    return half.auroc_p, half.mcnemar_p, chosen.mcnemar_p


def _tested(p: float, corrected: float) -> str:
    return "not tested" if np.isnan(p) else f"p = {p:.3g} (corrected {corrected:.3g})"


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
            ", ".join(f"{name.replace('_', ' ')} {_spread_text(*numbers[name])}" for name in names)
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


@dataclass(frozen=True)
class SideBySide:
    """Several networks on the same images: how they differ, and their spread over training runs."""

    results: tuple[TwoClassResult, ...]
    comparisons: list[PairedTest]
    spreads: list[SeedSpread]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        comparisons, networks = ([found.to_dict() for found in part] for part in (self.comparisons, self.spreads))
        return {"comparisons": comparisons, "networks": networks}

    def summary(self) -> list[str]:
        """The networks in a table, the tests, and the spreads; nothing of a single network."""
        if len(self.results) < 2:
            return []
        tests = [*(found.summary() for found in self.comparisons), about_tests(self.comparisons)]
        lines = "\n".join(["Paired tests on the same images", *tests])
        return [f"Side by side\n{table(self.results)}", lines, *(found.summary() for found in self.spreads)]


def side_by_side(results: Sequence[TwoClassResult]) -> SideBySide:
    """Compare networks. Raises AnalysisInputError if their images or labels differ."""
    return SideBySide(tuple(results), compare_all(results), over_seeds(results))


def table(results: Sequence[TwoClassResult]) -> str:
    """Several networks side by side: a line each, at 0.5 and at the chosen threshold."""
    width = max(len(result.readings.name) for result in results)
    rows = [
        (f"{found.threshold:<9.3f}", *(getattr(found, name).text() for name in SPREAD))
        for result in results
        for found in (result.everyone.half, result.everyone.chosen)
    ]
    heads = ("threshold", *(LABELS.get(name, name.replace("_", " ")) for name in SPREAD))
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    names = ["", *(result.readings.name for result in results for _ in range(2))]
    return "\n".join(
        f"{name:<{width}}  {'  '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))}".rstrip()
        for name, row in zip(names, (heads, *rows), strict=True)
    )


def _about(found: Diagnosis) -> str:
    return f"{quantity(found.images, 'image')} of {quantity(found.patients, 'patient')}, {found.positives} positive"


def _signed(found: Estimate) -> str:
    if np.isnan(found.value):
        return "not defined"
    return f"{found.value:+.3f} {found.interval() if found.has_interval else '(too few patients for an interval)'}"


def _spread_text(mean: float, deviation: float) -> str:
    return "not defined" if np.isnan(mean) else f"{mean:.3f} ± {deviation:.3f}"


def _plain(found: tuple[float, float]) -> dict[str, float | None]:
    return {key: None if np.isnan(v) else v for key, v in zip(("mean", "std"), found, strict=True)}
