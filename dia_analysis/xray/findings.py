"""How well networks tell many findings, each present or not: AUROC, AUPRC and more of each, and their means."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import erfc, nan, sqrt
from textwrap import indent
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from dia_analysis.errors import AnalysisInputError
from dia_analysis.results.base import Result, long_form
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.text_table import text_table
from dia_analysis.results.words import quantity
from dia_analysis.statistics.binary_metrics import (
    RESAMPLES,
    Diagnosis,
    area_variance,
    average_precision,
    compare,
    diagnose,
    placements,
    resampled,
)
from dia_analysis.statistics.intervals import LEAST, NORMAL, Estimate, Patients, same
from dia_analysis.statistics.significance import holm
from dia_analysis.xray.diagnosis import HALF, HOW, NO_PATIENTS

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

AT_ONCE = 50  # bootstrap samples
MACRO = ("auroc", "auprc", "sensitivity", "specificity")
Marks = Float[np.ndarray, "image finding"]


@dataclass(frozen=True)
class FindingReadings:
    """One network's scores, from 0 to 1, for the findings named: labels are 1, 0, or NaN where it is not known.

    `scale` says in words what the scores are; `unmatched` what of data or network has no counterpart.
    """

    name: str
    findings: tuple[str, ...]
    image_names: tuple[str, ...]
    patients: tuple[str, ...]
    labels: Marks
    scores: Marks
    scale: str = ""
    unmatched: tuple[str, ...] = ()
    grouping: str = NO_PATIENTS

    def of(self, place: int) -> tuple[Bool[np.ndarray, "some"], Float[np.ndarray, "some"], list[str]]:
        """Labels, scores and patients of the images for which a finding is known."""
        known = self.known(place)
        patients = [self.patients[i] for i in np.flatnonzero(known)]
        return self.labels[known, place] > HALF, self.scores[known, place], patients

    def known(self, place: int) -> Bool[np.ndarray, "image"]:
        """For which images it is known whether a finding is there."""
        return np.asarray(~np.isnan(self.labels[:, place]))


@dataclass(frozen=True)
class Finding:
    """How well one is told at a threshold of 0.5; None where fewer than ten patients have it, or do not have it.

    `p` tests whether the AUROC is 0.5, over patients; `corrected` is corrected by Holm's method for all findings.
    """

    name: str
    images: int
    positives: int
    found: Diagnosis | None = None
    p: float = nan
    corrected: float = nan

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        told = {} if self.found is None else self.found.to_dict()
        p = {"auroc_p": _plain(self.p), "auroc_p_holm": _plain(self.corrected)}
        return {"images": self.images, "positives": self.positives, "counts_only": self.found is None, **told, **p}

    def cells(self) -> list[str]:
        """Of the table."""
        counts = [self.name, f"{self.positives}/{self.images}"]
        if self.found is None:
            return [*counts, "", "", "", "", ""]
        each = [_short(getattr(self.found, name)) for name in MACRO]
        each[1] += f" / {self.found.prevalence:.2f}"
        return [*counts, *each, _p(self.corrected)]


@dataclass(frozen=True, repr=False)
class FindingsResult(Result):
    """How well a network tells each of many findings, and the means over those with enough patients (`macro`)."""

    file = "findings"
    readings: FindingReadings
    findings: tuple[Finding, ...]
    macro: Mapping[str, Estimate]
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def counted(self) -> list[Finding]:
        """Those with enough patients."""
        return [each for each in self.findings if each.found is not None]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "grouping": self.readings.grouping,
            "scores": self.readings.scale,
            "unmatched": list(self.readings.unmatched),
            "macro": {"findings": len(self.counted), **{name: each.to_dict() for name, each in self.macro.items()}},
            "findings": {each.name: each.to_dict() for each in self.findings},
        }

    def summary(self) -> str:
        """What is wrong first, then a table with a line for each finding, and the means."""
        given = self.readings
        patients = quantity(len(set(given.patients)), "patient")
        heads = ["finding", "positive", "AUROC", "AUPRC / prevalence", "sensitivity", "specificity", "p"]
        lines = [
            *self.remarks(),
            f"{quantity(len(given.image_names), 'image')} of {patients}, {quantity(len(self.findings), 'finding')}. "
            f"Patients: {given.grouping}.",
            f"Scores: {given.scale or 'as given'}; threshold {HALF}.",
            *given.unmatched,
            *_lined([heads, *(each.cells() for each in self.findings), self._macro_cells()]),
            f"Findings that fewer than {LEAST} patients have, or do not have: counts only. p: whether AUROC is 0.5, "
            f"over patients, corrected by Holm's method for {quantity(len(self.counted), 'finding')}.",
            HOW,
        ]
        return "\n".join(lines)

    def remarks(self) -> list[str]:
        """Findings that are ranked the wrong way round, in sentences."""
        wrong = [each for each in self.counted if each.found is not None and each.found.auroc.high < HALF]
        return [
            f"{each.name}: AUROC {each.found.auroc.value:.3f} {each.found.auroc.interval()} lies below 0.5 as a whole: "
            "images with it get lower scores, so outputs or labels may be mixed up."
            for each in wrong
            if each.found is not None
        ]

    def _macro_cells(self) -> list[str]:
        number = len(self.counted)
        return [f"mean of {number}", "", *(_short(self.macro[name]) for name in MACRO), ""] if number else []

    def datasets(self) -> "dict[str, xr.Dataset]":
        """By image and finding: score and label."""
        import xarray as xr

        given = self.readings
        coords = {"image": list(given.image_names), "finding": list(given.findings)}
        arrays = {"score": given.scores, "label": given.labels}
        return {self.file: xr.Dataset({k: (("image", "finding"), v) for k, v in arrays.items()}, coords=coords)}

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each image and finding: score and label."""
        return long_form([({}, self.datasets()[self.file])], "score", "label")

    def panels(self) -> "list[Callable[[Axes], object]]":
        """The AUROC of each finding with its interval."""
        return [self._draw] if self.counted else []

    def _draw(self, ax: "Axes") -> None:
        shown = self.counted[::-1]
        for row, each in enumerate(shown):
            assert each.found is not None
            area = each.found.auroc
            ax.plot([area.low, area.high], [row, row], color="C0")
            ax.plot(area.value, row, "o", color="C0", ms=4)
        ax.axvline(HALF, color="0.6", lw=0.8, label="chance")
        ax.set_ylim(-0.7, len(shown) - 0.3)
        ax.set(yticks=range(len(shown)), yticklabels=[each.name for each in shown], xlabel="AUROC (95 % interval)")
        ax.legend(loc="lower left")


def assess_findings(
    readings: FindingReadings, *, resamples: int = RESAMPLES, seed: int = 0, provenance: Provenance | None = None
) -> FindingsResult:
    """Judge a network's scores for many findings.

    Args:
        readings: The scores and labels.
        resamples: Bootstrap samples of patients, for the variance of AUPRC.
        seed: Of these samples.
        provenance: Where they come from.

    Raises:
        AnalysisInputError: For scores outside [0, 1] or not finite.
    """
    found = [_finding(readings, place, resamples, seed) for place in range(len(readings.findings))]
    corrected = holm([each.p for each in found])
    findings = tuple(replace(each, corrected=p) for each, p in zip(found, corrected, strict=True))
    return FindingsResult(readings, findings, _macro(readings, findings, resamples, seed), provenance or Provenance())


def _finding(readings: FindingReadings, place: int, resamples: int, seed: int) -> Finding:
    labels, scores, patients = readings.of(place)
    counts = Finding(readings.findings[place], len(labels), int(labels.sum()))
    whose = Patients.named(patients)
    if not len(labels) or min(len(whose.of(side).sizes) for side in (labels, ~labels)) < LEAST:
        return counts
    found = diagnose(labels, scores, patients, threshold=HALF, resamples=resamples, seed=seed)
    return replace(counts, found=found, p=_p_of_chance(labels, scores, whose))


def _p_of_chance(labels: Bool[np.ndarray, "image"], scores: Float[np.ndarray, "image"], patients: Patients) -> float:
    """Whether an AUROC is 0.5, by DeLong's variance over patients; where that vanishes, by that of equal ranks."""
    area, parts = placements(labels, scores)
    variance = area_variance(labels, parts, patients)
    if same(1.0, variance):
        first, second = (len(patients.of(side).sizes) for side in (labels, ~labels))
        variance = (first + second + 1) / (12 * first * second)
    return erfc(abs(area - HALF) / sqrt(2 * variance))


def _macro(readings: FindingReadings, findings: Sequence[Finding], resamples: int, seed: int) -> dict[str, Estimate]:
    """Means over the findings with enough patients; those of areas with an interval over the same patients."""
    places = [place for place, each in enumerate(findings) if each.found is not None]
    if not places:
        return {name: Estimate(nan) for name in MACRO}
    patients, images = Patients.named(readings.patients), len(readings.patients)
    means = {name: float(np.mean([getattr(findings[place].found, name).value for place in places])) for name in MACRO}
    deviations = {
        "auroc": sqrt(patients.variance(np.mean([_parts(readings, place) for place in places], axis=0))),
        "auprc": float(np.std(_mean_precision(readings, places, patients, resamples, seed))),
    }
    reach = {name: NORMAL * each for name, each in deviations.items()}
    return {
        name: Estimate(mean, max(mean - reach[name], 0.0), min(mean + reach[name], 1.0), images)
        if name in reach
        else Estimate(mean, images=images)
        for name, mean in means.items()
    }


def _parts(readings: FindingReadings, place: int) -> Float[np.ndarray, "image"]:
    """Each image's part in the error of a finding's AUROC."""
    labels, scores, _ = readings.of(place)
    parts = np.zeros(len(readings.patients))
    parts[readings.known(place)] = placements(labels, scores)[1]
    return parts


def _mean_precision(
    readings: FindingReadings, places: Sequence[int], patients: Patients, resamples: int, seed: int
) -> Float[np.ndarray, "sample"]:
    """The mean AUPRC of bootstrap samples of patients."""
    weights, means = resampled(patients, resamples, seed), []
    for start in range(0, resamples, AT_ONCE):
        drawn = weights[start : start + AT_ONCE]
        each = [average_precision(*readings.of(place)[:2], drawn[:, readings.known(place)]) for place in places]
        means.append(np.nanmean(each, axis=0))
    return np.concatenate(means)


@dataclass(frozen=True)
class FindingDifference:
    """A finding's AUROC by the first network minus that by the second, on the same images."""

    first: str
    second: str
    finding: str
    difference: Estimate
    p: float
    corrected: float = nan

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = {"first": self.first, "second": self.second, "finding": self.finding}
        tested = {"auroc_p": _plain(self.p), "auroc_p_holm": _plain(self.corrected)}
        return {**names, "auroc_difference": self.difference.to_dict(), **tested}


def compare_findings(results: Sequence[FindingsResult]) -> list[FindingDifference]:
    """Each two networks by each finding with enough patients, corrected by Holm's method for all of these tests.

    Raises AnalysisInputError if the images or findings differ.
    """
    for result in results[1:]:
        one, other = results[0].readings, result.readings
        alike = one.image_names == other.image_names and one.findings == other.findings
        if not alike or not np.array_equal(one.labels, other.labels, equal_nan=True):
            raise AnalysisInputError("data", f"{one.name} and {other.name} were not given the same images and findings")
    pairs = list(combinations(results, 2))
    found = [each for first, second in pairs for each in _differences(first, second)]
    corrected = holm([each.p for each in found])
    return [replace(each, corrected=p) for each, p in zip(found, corrected, strict=True)]


def _differences(first: FindingsResult, second: FindingsResult) -> Iterator[FindingDifference]:
    one, other = first.readings, second.readings
    for place, each in enumerate(first.findings):
        if each.found is not None:
            labels, scores, patients = one.of(place)
            found = compare(labels, (scores, HALF), (other.of(place)[1], HALF), patients)
            yield FindingDifference(one.name, other.name, each.name, found.auroc_difference, found.auroc_p)


def summarize_differences(found: Sequence[FindingDifference]) -> str:
    """A line for each, and how the p are corrected."""
    rows = [
        [
            f"{each.first} - {each.second}",
            each.finding,
            f"{each.difference.value:+.3f} {each.difference.interval()}",
            "not tested" if np.isnan(each.p) else _p(each.p),
            "" if np.isnan(each.p) else _p(each.corrected),
        ]
        for each in found
    ]
    head = ["networks", "finding", "AUROC difference", "p", "corrected"]
    tests = sum(not np.isnan(each.p) for each in found)
    about = f"p of paired tests over patients (DeLong et al. 1988), corrected by Holm's method for {tests} of them."
    return "\n".join([*_lined([head, *rows]), about])


def _lined(rows: Sequence[Sequence[str]]) -> list[str]:
    table = text_table([row for row in rows if row], left=range(len(rows[0])))
    return indent(table, "  ").splitlines()


def _short(found: Estimate) -> str:
    if np.isnan(found.value):
        return "not defined"
    interval = f" [{found.low:.2f}, {found.high:.2f}]" if found.has_interval else ""
    return f"{found.value:.2f}{interval}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value
