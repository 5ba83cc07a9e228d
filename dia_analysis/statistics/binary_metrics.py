"""How good is a two-class test, such as for pneumonia, and how sure can one be of it?

Intervals are at 95 % and over patients, as `dia_analysis.statistics.intervals` says; images of one patient are not
independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, inf, nan, sqrt
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dia_analysis.errors import AnalysisInputError
from dia_analysis.statistics.intervals import (
    LEAST,
    NORMAL,
    Estimate,
    Patients,
    balanced,
    bounded_mean,
    effective_number,
    same,
    share,
    wilson,
)

RESAMPLES = 1000
BINS = 15
METRICS = (
    "accuracy",
    "auroc",
    "auprc",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "brier",
    "calibration_error",
)
LABELS = {"auroc": "AUROC", "auprc": "AUPRC", "ppv": "PPV", "npv": "NPV", "brier": "Brier score"}
Labels = Bool[np.ndarray, "image"]
Scores = Float[np.ndarray, "image"]


@dataclass(frozen=True)
class Diagnosis:
    """A test's quality. `threshold` is the score from which an image counts as positive.

    `positive_patients` have a positive image, `negative_patients` a negative one. `ppv` and `npv` are the predictive
    values, at this prevalence. `brier` is the mean squared difference between score and outcome, `calibration_error`
    the expected calibration error over 15 bins of equal width (Naeini et al. 2015). It is biased upwards, so it has no
    interval; `calibrated_error` is what it would be, on average, if the scores were true probabilities.
    """

    images: int
    patients: int
    positives: int
    positive_patients: int
    negative_patients: int
    threshold: float
    accuracy: Estimate
    auroc: Estimate
    auprc: Estimate
    balanced_accuracy: Estimate
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    brier: Estimate
    calibration_error: Estimate
    calibrated_error: float
    resamples: int
    seed: int

    @property
    def prevalence(self) -> float:
        """The share of the images that are positive: the AUPRC of scores that know nothing."""
        return self.positives / self.images

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = {
            name: value.to_dict() if isinstance(value, Estimate) else value
            for name, value in ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        }
        return found | {"prevalence": self.prevalence, "remarks": self.remarks()}

    def rows(self) -> dict[str, str]:
        """By metric, its name in words and what it is, for a table."""
        found = {LABELS.get(name, name.replace("_", " ")): getattr(self, name).text() for name in METRICS}
        found["AUPRC"] += f" (prevalence {self.prevalence:.3f})"
        found["calibration error"] = f"{self.calibration_error.value:.3f} (calibrated: {self.calibrated_error:.3f})"
        return found

    def remarks(self) -> list[str]:
        """What a reader must know to read the numbers, in sentences."""
        return [*self._too_few(), *self._turned_round()]

    def _too_few(self) -> list[str]:
        found = (getattr(self, name) for name in METRICS if name != "calibration_error")
        if all(each.has_interval or np.isnan(each.value) for each in found):
            return []
        return [
            f"Counts alone stand where there are fewer than {LEAST} patients, too few for an interval (here "
            f"{self.positive_patients} with positive images, {self.negative_patients} with negative ones)."
        ]

    def _turned_round(self) -> list[str]:
        if not self.auroc.high < 0.5:
            return []
        return [
            f"AUROC {self.auroc.value:.3f} {self.auroc.interval()} lies below 0.5 as a whole: the scores rank the "
            "images the wrong way round, so labels or classes may be swapped."
        ]

    def summary(self) -> str:
        """A line per number, with its interval."""
        head = f"{self.images} images of {self.patients} patients, {self.positives} positive"
        lines = [f"  {name:<18} {text}" for name, text in self.rows().items()]
        return "\n".join([f"{head}; threshold {self.threshold:.3f}", *lines, *self.remarks()])


def diagnose(
    labels: Labels,
    scores: Scores,
    patients: Sequence[str],
    *,
    threshold: float = 0.5,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Diagnosis:
    """Judge scores against labels: sensitivity, AUROC and more, with 95 % intervals over patients.

    Args:
        labels: By image, whether it is positive.
        scores: By image, the probability of the positive class.
        patients: By image, whose it is.
        threshold: The score from which an image counts as positive.
        resamples: Bootstrap samples of patients, for the variance of AUPRC, and draws of labels, for the calibration
            error of calibrated scores.
        seed: Of these samples.

    Returns:
        The numbers at this threshold.

    Raises:
        AnalysisInputError: For scores outside [0, 1] or not finite, and for lengths that differ.
    """
    _check(labels, scores, patients)
    whose, above = Patients.named(patients), scores >= threshold

    def part(among: Labels, right: Labels) -> Estimate:
        return share(right[among], whose.of(among))

    sensitivity, specificity = part(labels, above), part(~labels, ~above)
    sides = [set(whose.owner[labels].tolist()), set(whose.owner[~labels].tolist())]
    random = np.random.default_rng(seed)
    return Diagnosis(
        images=len(labels),
        patients=len(whose.sizes),
        positives=int(labels.sum()),
        positive_patients=len(sides[0]),
        negative_patients=len(sides[1]),
        threshold=threshold,
        accuracy=share(above == labels, whose),
        auroc=auroc(labels, scores, whose),
        auprc=_auprc(labels, scores, whose, resamples, seed),
        balanced_accuracy=balanced(sensitivity, specificity, apart=not sides[0] & sides[1]),
        sensitivity=sensitivity,
        specificity=specificity,
        ppv=part(above, labels),
        npv=part(~above, ~labels),
        brier=bounded_mean(np.square(scores - labels), whose),
        calibration_error=Estimate(calibration_error(labels, scores), images=len(labels)),
        calibrated_error=float(
            np.mean([calibration_error(random.random(len(scores)) < scores, scores) for _ in range(resamples)])
        ),
        resamples=resamples,
        seed=seed,
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
    test on them, which takes images as independent. `auroc_p` tests whether the AUROCs are equal, over patients (DeLong
    et al. 1988; Obuchowski 1997); NaN where there are too few patients or nothing varies.
    """

    only_first: int
    only_second: int
    mcnemar_p: float
    accuracy_difference: Estimate
    auroc_difference: Estimate
    auroc_p: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        differences = {k: getattr(self, k).to_dict() for k in ("accuracy_difference", "auroc_difference")}
        return {
            "only_first": self.only_first,
            "only_second": self.only_second,
            "mcnemar_p": self.mcnemar_p,
            "auroc_p": None if np.isnan(self.auroc_p) else self.auroc_p,
        } | differences


def compare(
    labels: Labels, first: tuple[Scores, float], second: tuple[Scores, float], patients: Sequence[str]
) -> Comparison:
    """Compare two tests, each its scores and threshold, image by image."""
    from scipy.stats import binomtest

    for scores, _ in (first, second):
        _check(labels, scores, patients)
    whose = Patients.named(patients)
    right = [(scores >= threshold) == labels for scores, threshold in (first, second)]
    one, other = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    p = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    accuracy = _accuracy_difference(right[0].astype(np.float64) - right[1], whose)
    return Comparison(one, other, p, accuracy, *_auroc_difference(labels, first[0], second[0], whose))


def _accuracy_difference(gain: Float[np.ndarray, "image"], patients: Patients) -> Estimate:
    """Of two tests on the same images, by Bonett and Price 2012, on as many independent images as these are worth."""
    value, images = float(gain.mean()), len(gain)
    if len(patients.sizes) < LEAST:
        return Estimate(value, images=images)
    variance = patients.variance((gain - value) / images) * (images - 1) / images
    alone = float(gain.var()) / images
    number = patients.count if same(1.0, variance) else images * min(alone / variance, 1)
    first, second = (((gain == sign).mean() * number + 1) / (number + 2) for sign in (1, -1))
    reach = patients.quantile * sqrt((first + second - (first - second) ** 2) / (number + 2))
    return Estimate(value, max(first - second - reach, -1.0), min(first - second + reach, 1.0), images)


def _auroc_difference(labels: Labels, first: Scores, second: Scores, patients: Patients) -> tuple[Estimate, float]:
    """With its p. Where it does not vary, the interval is that of two tests on other patients, and there is no p."""
    one, other = auroc(labels, first, patients), auroc(labels, second, patients)
    value = one.value - other.value
    if not one.has_interval:
        return Estimate(value, images=len(labels)), nan
    variance = area_variance(labels, placements(labels, first)[1] - placements(labels, second)[1], patients)
    if same(1.0, variance):
        low, high = (
            sqrt((one.value - a) ** 2 + (b - other.value) ** 2)
            for a, b in ((one.low, other.high), (one.high, other.low))
        )
        return Estimate(value, value - low, value + high, len(labels)), nan
    reach = NORMAL * sqrt(variance)
    p = erfc(abs(value) / sqrt(2 * variance))
    return Estimate(value, max(value - reach, -1.0), min(value + reach, 1.0), len(labels)), p


def placements(labels: Labels, scores: Scores) -> tuple[float, Float[np.ndarray, "image"]]:
    """The AUROC, and each image's part in its error (DeLong et al. 1988): their sum over images varies as it does."""
    from scipy.stats import rankdata

    positives, negatives = int(labels.sum()), int((~labels).sum())
    ranks = rankdata(scores)
    beaten = (ranks[labels] - rankdata(scores[labels])) / negatives  # by each positive image, the share of negatives
    beating = 1 - (ranks[~labels] - rankdata(scores[~labels])) / positives
    area = float(beaten.mean())
    parts = np.empty(len(scores))
    parts[labels], parts[~labels] = (beaten - area) / positives, (beating - area) / negatives
    return area, parts


def area_variance(labels: Labels, parts: Float[np.ndarray, "image"], patients: Patients) -> float:
    """Of an AUROC, or of a difference of two, from the images' `placements` (Obuchowski 1997).

    DeLong's where every image is of another patient: each class varies with the number of its own patients.
    """
    count = len(patients.sizes)
    sides = [np.bincount(patients.owner, np.where(side, parts, 0), count) for side in (labels, ~labels)]
    own = [len(patients.of(side).sizes) for side in (labels, ~labels)]
    alone = sum(float(sums @ sums) * n / (n - 1) for sums, n in zip(sides, own, strict=True))
    return alone + 2 * float(sides[0] @ sides[1]) * count / (count - 1)


def auroc(labels: Labels, scores: Scores, patients: Patients) -> Estimate:
    """The area under the ROC curve, with DeLong's variance over patients (Obuchowski 1997) in Wilson's interval.

    The images count for no more than 4 m n / (m + n) independent ones, of which m positive and n negative: what
    Newcombe's (2006) variance gives for an area near 1, where DeLong's vanishes. At 0 and 1 patients count once.
    """
    images = len(labels)
    if labels.all() or not labels.any():
        return Estimate(nan, images=images)
    value, parts = placements(labels, scores)
    sides = patients.of(labels), patients.of(~labels)
    if min(len(side.sizes) for side in sides) < LEAST:
        return Estimate(value, images=images)
    most = 4 / (1 / labels.sum() + 1 / (~labels).sum())
    alike = 4 / sum(1 / side.count for side in sides)
    number = effective_number(value, area_variance(labels, parts, patients), float(most), alike)
    return Estimate(value, *wilson(value, number, NORMAL), images)


def _auprc(labels: Labels, scores: Scores, patients: Patients, resamples: int, seed: int) -> Estimate:
    """The average precision, with the bootstrap's variance in Wilson's interval.

    The images count for no more than the positive ones (Boyd, Eng and Page 2013), in a perfect ranking for no more than
    their patients.
    """
    once = np.ones((1, len(labels)))
    images, value = len(labels), float(average_precision(labels, scores, once)[0])
    sides = patients.of(labels), patients.of(~labels)
    if min(len(side.sizes) for side in sides) < LEAST:
        return Estimate(value, images=images)
    draws = average_precision(labels, scores, resampled(patients, resamples, seed))
    number = effective_number(value, float(np.nanvar(draws)), float(labels.sum()), sides[0].count)
    return Estimate(value, *wilson(value, number, NORMAL), images)


def average_precision(
    labels: Labels, scores: Scores, weights: Float[np.ndarray, "sample image"]
) -> Float[np.ndarray, "sample"]:
    """The area under the precision-recall curve as a sum of steps, of several samples; equal scores together.

    A weight says how often an image is in a sample. NaN in a sample without positive images.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=inf))
    hits, alarms = (np.add.reduceat((weights * side)[:, order], starts, axis=1) for side in (labels, ~labels))
    all_hits = hits.cumsum(1)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN: nothing of the sample has such a score
        precision = np.nan_to_num(all_hits / (all_hits + alarms.cumsum(1)))
        return np.asarray((hits * precision).sum(1) / all_hits[:, -1])


def calibration_error(labels: Labels, scores: Scores) -> float:
    """The mean over 15 bins, weighted by their images, of how far the mean score is from the share of positives."""
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, scores - labels)).sum() / len(scores))


def resampled(patients: Patients, resamples: int, seed: int) -> Float[np.ndarray, "sample image"]:
    """How often each image is in each sample: as many patients as there are, drawn with replacement."""
    count, random = len(patients.sizes), np.random.default_rng(seed)
    drawn = [np.bincount(random.integers(count, size=count), minlength=count) for _ in range(resamples)]
    return np.stack(drawn)[:, patients.owner].astype(np.float64)


def _check(labels: Labels, scores: Scores, patients: Sequence[str]) -> None:
    if not len(labels) == len(scores) == len(patients) > 0:
        counts = f"{len(labels)} labels, {len(scores)} scores and {len(patients)} patients"
        raise AnalysisInputError("data", f"{counts} were given; there must be one of each per image")
    if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
        raise AnalysisInputError("data", "scores must be probabilities, finite and from 0 to 1")
