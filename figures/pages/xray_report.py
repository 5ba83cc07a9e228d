"""One page on chest X-ray networks: how good they are, where they look, whether the maps can be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from dia_analysis import HeatmapComparison, RegionsResult, TrustReport
from dia_analysis.networks import Known, Network, compare_heatmaps, explain
from dia_analysis.results.provenance import versions
from dia_analysis.statistics.binary_metrics import Diagnosis, diagnose
from dia_analysis.statistics.intervals import percent
from dia_analysis.xray.diagnosis import HOW, Readings, SideBySide, TwoClassResult, about_tests, by_patient, side_by_side
from dia_analysis.xray.regions import SOURCES, SUBSETS
from figures.gradcam import ROWS, heatmaps
from figures.pages.html import embed, page
from figures.regions import region_shares

WORST_PATIENTS = 20


@dataclass(frozen=True)
class Subject:
    """A checkpoint: what it is, and its numbers."""

    name: str
    known: Known
    result: TwoClassResult


@dataclass(frozen=True)
class Column:
    """A column of a table of numbers."""

    name: str
    found: Diagnosis


@dataclass(frozen=True)
class PatientRow:
    """A patient, and each network's mean score."""

    name: str
    images: int
    positive: bool
    scores: tuple[float, ...]


@dataclass(frozen=True)
class XrayPage:
    """All that the page shows. `heatmaps` are of the worst errors; `pictures` are as each network sees them."""

    data: str
    subjects: tuple[Subject, ...]
    compared: SideBySide
    heatmaps: HeatmapComparison
    pictures: Sequence[UInt8[np.ndarray, "image height width 3"]]
    regions: RegionsResult
    mean_picture: UInt8[np.ndarray, "height width"]
    trust: TrustReport
    unreadable: Mapping[str, str]
    versions: Mapping[str, str]

    def at(self, part: Literal["everyone", "unseen"], threshold: Literal["half", "chosen"]) -> list[Column]:
        """Each network's numbers for a part of the images at a threshold; empty where that part is not known."""
        pairs = [(subject.name, getattr(subject.result, part)) for subject in self.subjects]
        return [Column(name, getattr(pair, threshold)) for name, pair in pairs if pair is not None]

    def by_patient(self) -> list[Column]:
        """Each network's numbers with one score a patient, at 0.5."""
        readings = [(subject.name, by_patient(subject.result.readings)) for subject in self.subjects]
        return [Column(name, diagnose(r.labels, r.scores, r.patients)) for name, r in readings]

    @property
    def worst_patients(self) -> list[PatientRow]:
        """The patients whose true class gets the lowest score, mean over the networks, worst first."""
        several = [by_patient(subject.result.readings) for subject in self.subjects]
        first, scores = several[0], np.stack([readings.scores for readings in several], 1)
        order = np.argsort(np.where(first.labels, 1, -1) * (scores.mean(1) - 0.5), kind="stable")
        owned = self.subjects[0].result.readings.patients
        return [
            PatientRow(name, owned.count(name), bool(first.labels[i]), tuple(scores[i].tolist()))
            for i in order[:WORST_PATIENTS]
            for name in (first.patients[i],)
        ]


def measure_page(
    networks: Sequence[Network],
    results: Sequence[TwoClassResult],
    regions: RegionsResult,
    mean_picture: UInt8[np.ndarray, "height width"],
    trust: TrustReport,
    unreadable: Mapping[str, str],
) -> XrayPage:
    """The page of networks, of which the results, regions and checks are known; the worst errors are explained.

    The networks' images are of the data of the results.
    """
    readings = [each.readings for each in results]
    images = networks[0].images.of(readings[0].image_names[i] for i in worst_first(readings)[:ROWS])
    some = [network.of(images) for network in networks]
    heatmaps = compare_heatmaps(some, [explain(each) for each in some])
    return XrayPage(
        data=images.data,
        subjects=tuple(Subject(each.name, each.known, found) for each, found in zip(networks, results, strict=True)),
        compared=side_by_side(results),
        heatmaps=heatmaps,
        pictures=[next(each.pictures(heatmaps.size, ROWS)) for each in some],
        regions=regions,
        mean_picture=mean_picture,
        trust=trust,
        unreadable=unreadable,
        versions=versions(),
    )


def xray_report(content: XrayPage) -> str:
    """The page as one HTML document that needs nothing else."""
    first = content.subjects[0].result
    names = ", ".join(subject.name for subject in content.subjects)
    drawn = content.heatmaps
    shown = min(ROWS, len(drawn.labels))
    alt_maps = f"Heatmaps of {names} on the {shown} images with the worst errors"
    return page(
        "xray_report.html",
        page=content,
        first=first,
        positive=first.readings.class_names[1],
        percent=percent,
        how=HOW,
        about_tests=about_tests(content.compared.comparisons) if content.compared.comparisons else "",
        heatmaps=embed(heatmaps(drawn.results, content.pictures, drawn.captions()), alt_maps, "png"),
        regions_figure=embed(region_shares(content.regions, content.mean_picture), _alt(content.regions)),
        regions_about=SOURCES[content.regions.source],
        region_rows={name: _region_rows(content.regions, name) for name in content.regions.networks},
        region_notes=content.regions.notes(),
    )


def worst_first(several: Sequence[Readings]) -> list[int]:
    """The images in the order of the score that the networks give the true class, on average, lowest first."""
    scores = np.mean([readings.scores for readings in several], axis=0)
    return [int(i) for i in np.argsort(np.where(several[0].labels, scores, 1 - scores), kind="stable")]


def _alt(result: RegionsResult) -> str:
    """The figure's main numbers in a sentence for each network."""
    sentences = []
    for name in result.networks:
        shares = ", ".join(
            f"{region.replace('_', ' ')} {share.share.value:.2f} (uniform {share.area:.2f})"
            for region, share in result.shares(name).items()
        )
        sentences.append(f"{name}: {shares}.")
    return "Mean share of the evidence by region. " + " ".join(sentences)


def _region_rows(result: RegionsResult, network: str) -> list[dict[str, Any]]:
    columns = [result.shares(network, subset) for subset in SUBSETS]
    return [
        {
            "region": region.replace("_", " "),
            "area": f"{columns[0][region].area:.3f}",
            "cells": [column[region].text() for column in columns],
        }
        for region in result.regions
    ]
