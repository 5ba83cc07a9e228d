"""How good is a two-class test, such as for pneumonia, and how sure can one be of it?

Intervals are at 95 %. Images of one patient are not independent, so intervals and differences come from resampling
patients (the cluster bootstrap); Wilson's interval, which takes images as independent, stands beside accuracy.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binomtest

from dia_analysis.errors import AnalysisInputError

RESAMPLES = 1000
BINS = 15
Labels = Bool[np.ndarray, "image"]
Scores = Float[np.ndarray, "image"]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; NaN where it is not defined, such as a sensitivity without positives."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain values for JSON; what is not defined is null."""
        return {name: None if np.isnan(number) else number for name, number in asdict(self).items()}

    def text(self) -> str:
        """The number with its interval, for a table."""
        return "not defined" if np.isnan(self.value) else f"{self.value:.3f} {self.interval()}"

    def interval(self) -> str:
        """The interval alone."""
        return f"[{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Diagnosis:
    """A test's quality. `threshold` is the score from which an image counts as positive.

    `accuracy_wilson` is Wilson's interval; all other intervals are over `resamples` bootstrap samples of patients.
    `calibration_error` is the expected calibration error over 15 bins of equal width (Naeini et al. 2015), `brier` the
    mean squared difference between score and outcome.
    """

    images: int
    patients: int
    positives: int
    threshold: float
    accuracy: Estimate
    accuracy_wilson: Estimate
    auroc: Estimate
    auprc: Estimate
    balanced_accuracy: Estimate
    sensitivity: Estimate
    specificity: Estimate
    brier: Estimate
    calibration_error: Estimate
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            name: value.to_dict() if isinstance(value, Estimate) else value
            for name, value in ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        }

    def summary(self) -> str:
        """A line per number, with its interval."""
        head = f"{self.images} images of {self.patients} patients, {self.positives} positive"
        lines = [
            f"  {'accuracy':<18} {self.accuracy.text()}   Wilson {self.accuracy_wilson.interval()}",
            *(f"  {name.replace('_', ' '):<18} {getattr(self, name).text()}" for name in METRICS[1:]),
        ]
        return "\n".join([f"{head}; threshold {self.threshold:.3f}", *lines])


def diagnose(
    labels: Labels,
    scores: Scores,
    patients: Sequence[str],
    *,
    threshold: float = 0.5,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Diagnosis:
    """Judge scores (probabilities of the positive class) against labels (true: positive).

    Raises AnalysisInputError for scores outside [0, 1] or not finite, and for lengths that differ.
    """
    _check(labels, scores, patients)
    values = measures(labels, scores, threshold, np.ones((1, len(labels))))
    draws = measures(labels, scores, threshold, resampled(patients, resamples, seed))
    right = int(((scores >= threshold) == labels).sum())
    wilson = binomtest(right, len(labels)).proportion_ci(method="wilson")
    return Diagnosis(
        images=len(labels),
        patients=len(set(patients)),
        positives=int(labels.sum()),
        threshold=threshold,
        accuracy_wilson=Estimate(right / len(labels), float(wilson.low), float(wilson.high)),
        resamples=resamples,
        seed=seed,
        **{name: estimate(float(value[0]), draws[name]) for name, value in values.items()},
    )


def best_threshold(labels: Labels, scores: Scores) -> float:
    """The threshold with the highest balanced accuracy, to be chosen on validation images.

    Half-way between two scores; of equally good ones the one nearest to 0.5.
    Raises AnalysisInputError unless there are images of both classes.
    """
    if labels.all() or not labels.any():
        raise AnalysisInputError("data", "a threshold can only be chosen on images of both classes")
    distinct = np.unique(scores)
    candidates = np.concatenate([[0.0], (distinct[1:] + distinct[:-1]) / 2, [1.0], [0.5]])
    found, spared = np.sort(scores[labels]), np.sort(scores[~labels])
    sensitivity = 1 - np.searchsorted(found, candidates) / len(found)
    quality = sensitivity + np.searchsorted(spared, candidates) / len(spared)
    best = candidates[np.isclose(quality, quality.max())]
    return float(best[np.abs(best - 0.5).argmin()])


@dataclass(frozen=True)
class Comparison:
    """Two tests on the same images: how they differ (first minus second), and whether chance explains it.

    `only_first` and `only_second` count the images that only one of them gets right; `mcnemar_p` is McNemar's exact
    test on them, which takes images as independent. The intervals are over bootstrap samples of patients.
    """

    only_first: int
    only_second: int
    mcnemar_p: float
    accuracy_difference: Estimate
    auroc_difference: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        differences = {k: getattr(self, k).to_dict() for k in ("accuracy_difference", "auroc_difference")}
        return {
            "only_first": self.only_first,
            "only_second": self.only_second,
            "mcnemar_p": self.mcnemar_p,
        } | differences


def compare(
    labels: Labels,
    first: tuple[Scores, float],
    second: tuple[Scores, float],
    patients: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two tests, each its scores and threshold, image by image."""
    for scores, _ in (first, second):
        _check(labels, scores, patients)
    right = [(scores >= threshold) == labels for scores, threshold in (first, second)]
    one, other = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    once, often = np.ones((1, len(labels))), resampled(patients, resamples, seed)
    differences = []
    for name in ("accuracy", "auroc"):
        value, draws = (
            measures(labels, *first, weights)[name] - measures(labels, *second, weights)[name]
            for weights in (once, often)
        )
        differences.append(estimate(float(value[0]), draws))
    p = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    return Comparison(one, other, p, *differences)


METRICS = (
    "accuracy",
    "auroc",
    "auprc",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "brier",
    "calibration_error",
)


def measures(
    labels: Labels, scores: Scores, threshold: float, weights: Float[np.ndarray, "sample image"]
) -> dict[str, Float[np.ndarray, "sample"]]:
    """Every metric of several samples at once; a weight says how often an image is in a sample. NaN: not defined."""
    positive, negative, total = weights * labels, weights * ~labels, weights.sum(1)
    above = scores >= threshold
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN: a sample without one of the classes
        sensitivity = positive[:, above].sum(1) / positive.sum(1)
        specificity = negative[:, ~above].sum(1) / negative.sum(1)
        auroc, auprc = _areas(scores, positive, negative)
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    gaps = (weights * (scores - labels)) @ np.eye(BINS)[bins]
    numbers = (
        weights[:, above == labels].sum(1) / total,
        auroc,
        auprc,
        (sensitivity + specificity) / 2,
        sensitivity,
        specificity,
        weights @ np.square(scores - labels) / total,
        np.abs(gaps).sum(1) / total,
    )
    return dict(zip(METRICS, numbers, strict=True))


def _areas(
    scores: Scores, positive: Float[np.ndarray, "sample image"], negative: Float[np.ndarray, "sample image"]
) -> tuple[Float[np.ndarray, "sample"], Float[np.ndarray, "sample"]]:
    """The areas under the ROC curve and the precision-recall curve (as a sum of steps), equal scores together."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    hits, alarms = (np.add.reduceat(w[:, order], starts, axis=1) for w in (positive, negative))
    all_hits, all_alarms = hits.cumsum(1), alarms.cumsum(1)
    wins = (alarms * (all_hits - hits / 2)).sum(1)
    precision = np.nan_to_num(all_hits / (all_hits + all_alarms))
    return wins / (all_hits[:, -1] * all_alarms[:, -1]), (hits * precision).sum(1) / all_hits[:, -1]


def resampled(patients: Sequence[str], resamples: int, seed: int) -> Float[np.ndarray, "sample image"]:
    """How often each image is in each sample: as many patients as there are, drawn with replacement."""
    _, owner = np.unique(np.asarray(patients), return_inverse=True)
    count = int(owner.max()) + 1
    random = np.random.default_rng(seed)
    drawn = [np.bincount(random.integers(count, size=count), minlength=count) for _ in range(resamples)]
    return np.stack(drawn)[:, owner].astype(np.float64)


def estimate(value: float, draws: Float[np.ndarray, "sample"]) -> Estimate:
    """A number with the middle 95 % of its bootstrap samples; samples in which it is not defined are left out."""
    defined = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(defined):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _check(labels: Labels, scores: Scores, patients: Sequence[str]) -> None:
    if not len(labels) == len(scores) == len(patients) > 0:
        counts = f"{len(labels)} labels, {len(scores)} scores and {len(patients)} patients"
        raise AnalysisInputError("data", f"{counts} were given; there must be one of each per image")
    if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
        raise AnalysisInputError("data", "scores must be probabilities, finite and from 0 to 1")
