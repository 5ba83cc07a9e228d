"""One page with everything that the analyses found of some networks on some images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path
from textwrap import fill
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup, escape

from dia_analysis import (
    AblationResult,
    CorrelationResult,
    CostResult,
    GradientResult,
    NetworkCost,
    StageGini,
    TrustChecks,
)
from dia_analysis.ablation.outcomes import Scores
from dia_analysis.gradients.results import HEADS
from dia_analysis.importance.readings import GiniReadings
from dia_analysis.paper.findings import Finding, importance_beyond
from dia_analysis.paper.gradient_pairs import BesidePlain
from dia_analysis.paper.importance import ImportanceComparison
from dia_analysis.paper.untrained import Baseline, BesideUntrained
from dia_analysis.results.style import COLORS
from dia_analysis.trust.heatmaps import HeatmapComparison
from figures.correlation import distribution, scatter
from figures.correlation_parts import correlation_parts
from figures.cost import cost_ratios
from figures.gradcam import heatmaps
from figures.gradients import gradient_distributions
from figures.pages import headlines
from figures.pages.html import embed, page, save_page, source
from figures.pages.html_table import Cell, Table, number, table
from figures.pages.matrix_html import colors, correlation_matrices, gini_matrices
from figures.trust import trust_checks

WIDTH = 110  # columns of the findings as text
SHOWN = 4  # images with their heatmaps
QUESTIONS = {
    "correlation": "Are the attention maps of different layers alike?",
    "ablation": "Does the network use its attention, and its dependence on the image?",
    "gini": "Which earlier layers predict a layer's attention?",
    "gradients": "Where do gradients vanish or explode?",
    "gradcam": "What do the networks look at, and can the heatmaps be trusted?",
    "cost": "What does attention cost?",
}
TITLES = {
    "correlation": "Correlation",
    "ablation": "Ablation",
    "gini": "Gini importance",
    "gradients": "Gradients",
    "gradcam": "Grad-CAM",
    "cost": "Cost",
}
T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """A network: `facts` say what it is, by name of the fact, the same names for all."""

    name: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Heatmaps:
    """What networks look at, and for each the images that it sees, at least the first four."""

    found: HeatmapComparison
    pictures: Sequence[UInt8[np.ndarray, "image height width 3"]]


@dataclass(frozen=True)
class Section(Generic[T]):
    """An analysis on the page: its `result`, what it is `about`, the `commands` that do it again, what came out.

    `missing` says of which networks there is nothing, and why; the result is None if there is none at all.
    """

    result: T | None
    about: str
    commands: Sequence[str]
    findings: Sequence[tuple[str, Finding | str]]
    missing: Sequence[str] = ()

    @property
    def found(self) -> T:
        """The result, where there is one."""
        assert self.result is not None
        return self.result


@dataclass(frozen=True)
class ReportPage:
    """All that the page shows. The names in the findings are those of networks, or empty if one is about several.

    `command` makes the page again, empty if none does.
    """

    data: str
    selection: str
    command: str
    subjects: Sequence[Facts]
    correlation: Section[Mapping[str, BesideUntrained]]
    ablation: Section[AblationResult]
    gini: Section[ImportanceComparison]
    gradients: Section[BesidePlain]
    gradcam: Section[Heatmaps]
    cost: Section[CostResult]
    unreadable: Mapping[str, str]
    versions: Mapping[str, str]
    seed: int

    def headlines(self) -> dict[str, str]:
        """What came out, a sentence for each analysis that there is, by the analysis' name."""
        said = {
            "correlation": self.correlation.result and headlines.of_correlation(self.correlation.result),
            "ablation": self.ablation.result and headlines.of_ablation(self.ablation.result),
            "gini": self.gini.result and importance_beyond(self.gini.result.networks),
            "gradients": self.gradients.result and headlines.of_gradients(self.gradients.result.result),
            "gradcam": self.gradcam.result and headlines.of_heatmaps(self.gradcam.result.found),
            "cost": self.cost.result and headlines.of_cost(self.cost.result),
        }
        return {name: sentence for name, sentence in said.items() if sentence}

    def summary(self) -> str:
        """The findings of every analysis."""
        return "\n\n".join(_told(question, getattr(self, name).findings) for name, question in QUESTIONS.items())

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.summary())}</pre>"

    def without_commands(self) -> "ReportPage":
        """The page of what no command does again."""
        sections = {name: replace(getattr(self, name), commands=()) for name in QUESTIONS}
        return replace(self, command="", **sections)

    def html(self) -> str:
        """The page as one HTML document that needs nothing else."""
        return page(
            "report.html",
            style=source("report.css") + colors(),
            script=source("report.js"),
            page=self,
            sections={name: getattr(self, name) for name in QUESTIONS},
            questions=QUESTIONS,
            titles=TITLES,
            headlines=self.headlines(),
            correlation=_part(self.correlation, lambda found: _correlation(found, self.seed)),
            ablation=_part(self.ablation, _ablation),
            gini=_part(self.gini, lambda found: _gini(found.networks)),
            gradients=_part(self.gradients, lambda found: _gradients(found.result)),
            gradcam=_part(self.gradcam, _gradcam),
            cost=_part(self.cost, _cost),
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page; what a file's name holds that is no character becomes an escape.

        Raises AnalysisInputError if there is a file and `overwrite` is false, and if it cannot be written.
        """
        return save_page(Path(path), self.html(), overwrite=overwrite)


def _told(question: str, findings: Sequence[tuple[str, Finding | str]]) -> str:
    lines = [question]
    for name, finding in findings:
        text = finding if isinstance(finding, str) else f"{finding.text}\n{finding.comparison()}"
        lines += [fill(part, WIDTH) for part in (f"{name}: {text}" if name else text).splitlines()]
    return "\n".join(lines)


def _part(section: Section[T], draw: Callable[[T], dict[str, object]]) -> dict[str, object] | None:
    return None if section.result is None else draw(section.result)


PARTS = {"pooled r": "pooled_r", "static part": "r_from_static", "image-dependent part": "r_from_image"}


@dataclass(frozen=True)
class _Figure:
    """A figure as an image, and what stands under it."""

    image: Markup
    caption: str


def _correlation(results: Mapping[str, BesideUntrained], seed: int) -> dict[str, object]:
    paired = {name: both for name, both in results.items() if _has_pairs(both.trained)}
    return {
        "stages": correlation_matrices(results) if paired else [],
        "table": _correlation_table(results),
        "notes": _notes({name: both.trained.summary() for name, both in results.items()}),
        "figures": [figure for name, both in paired.items() for figure in _correlation_figures(name, both, seed)],
    }


def _ablation(result: AblationResult) -> dict[str, object]:
    heads = ("network", "replaced by", "map change", "accuracy", "change", "95 %", "loss", "changed", "KL")
    rows = [
        (
            network.name,
            one.replaced_by,
            number(one.map_change, ".3f"),
            *_accuracies(one.scores),
            number(one.scores.loss.value, ".3f"),
            number(100 * one.scores.changed.value, ".1f", " %"),
            number(one.scores.kl.value, ".3f"),
        )
        for network in result.networks
        for one in network.ablations
    ]
    untouched = [
        f"{network.name}: untouched accuracy {100 * network.accuracy.value:.1f} %, {network.num_images} images, means "
        f"over {network.fit_images} others."
        for network in result.networks
        if not isnan(network.accuracy.value)
    ]
    notes = [f"{network.name}: {note}" for network in result.networks for note in network.notes]
    names = ", ".join(network.name for network in result.networks)
    alt = f"Accuracy of {names} with every attention map replaced; the table below has the numbers"
    caption = "Accuracy with every map replaced; the dashed line is that of the network as it is."
    drawn = result.figure()
    return {
        "figures": [] if drawn is None else [_Figure(embed(drawn, alt), caption)],
        "table": table("Every attention map replaced; changes are in points, changed are predictions", heads, rows),
        "notes": [*untouched, *notes],
    }


def _accuracies(scores: Scores) -> tuple[Cell | str, ...]:
    change = scores.accuracy_change
    ends = "–" if isnan(change.low) else f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    return number(100 * scores.accuracy.value, ".1f", " %"), number(100 * change.value, "+.1f"), ends


def _has_pairs(result: CorrelationResult) -> bool:
    return any(stage.comparable for stage in result.stages)


def _correlation_figures(name: str, both: BesideUntrained, seed: int) -> list[_Figure]:
    means = ", ".join(f"stage {s.stage} {_plain(s.mean_r)}" for s in both.trained.stages)
    beside = " ".join(f"{baseline.title()}." for baseline in (both.before, both.reestimated) if baseline)
    return [
        *_parts_figure(name, both),
        _Figure(
            embed(distribution(both.results()), f"Distribution of r in {name}, by stage; mean r: {means}"),
            f"{name}: all values of r, over images and pairs of layers. {beside}",
        ),
        _Figure(
            embed(scatter(both.trained, seed), f"Two layers' attention maps of {name} against each other", "png"),
            f"{name}: the maps of two layers, drawn at random, against each other; a point is a channel or position.",
        ),
    ]


def _parts_figure(name: str, both: BesideUntrained) -> list[_Figure]:
    """Pooled r in its parts, where these were measured."""
    numbers = both.trained.numbers
    if "pooled_r" not in numbers:
        return []
    parts = ", ".join(f"{what} {_plain(numbers[key].value)}" for what, key in PARTS.items())
    return [
        _Figure(
            embed(correlation_parts(both.results()), f"Pooled r of {name} in its parts, by stage; all stages: {parts}"),
            f"{name}: r of all images together, of which the static part comes from the mean maps; below, three "
            "readings of how alike layers depend on the image, with what chance gives.",
        )
    ]


def _correlation_table(results: Mapping[str, BesideUntrained]) -> Table:
    heads = (
        *("network", "stage", "layers", "mean r", "untrained", "re-estimated"),
        *("std", "median", "r > 0.8", "pairs", "undefined"),
    )
    rows = [
        (
            name,
            number(stage.stage, "d"),
            number(len(stage.layers), "d"),
            number(stage.mean_r, "z.3f"),
            _mean_before(both.before, index),
            _mean_before(both.reestimated, index),
            number(stage.std_r, "z.3f"),
            number(stage.median_r, "z.3f"),
            _percent(stage.share_above_0_8),
            number(stage.pairs, ",d"),
            number(stage.undefined, ",d"),
        )
        for name, both in results.items()
        for index, stage in enumerate(both.trained.stages)
    ]
    return table("Pearson r between the attention maps of a stage's layers", heads, rows)


def _mean_before(baseline: Baseline | None, index: int) -> Cell:
    return number(baseline.result.stages[index].mean_r if baseline else None, "z.3f")


def _gini(results: Mapping[str, GiniReadings]) -> dict[str, object]:
    notes = [f"{name}, {note}" for name, readings in results.items() for note in readings.notes()]
    grown = any(stage.numbers is not None for readings in results.values() for stage in readings.first.stages)
    return {"stages": gini_matrices(results) if grown else [], "table": _gini_table(results), "notes": notes}


def _notes(summaries: Mapping[str, str]) -> list[str]:
    """The sentences below the table of each network's summary."""
    return [
        f"{name}: {line}"
        for name, summary in summaries.items()
        for line in summary.splitlines()
        if line.startswith("Stage ")
    ]


def _gini_table(results: Mapping[str, GiniReadings]) -> Table:
    heads = (
        *("network", "stage", "layers", "rows", "of", "R²", "null R²", "untrained R²"),
        *("beyond two nearest", "untrained", "if flat", "left out", "by permutation"),
    )
    rows = [
        (
            name,
            number(stage.stage, "d"),
            number(len(stage.layers), "d"),
            kind,
            number(stage.rows, ",d"),
            number(stage.mean_r2(), "z.2f"),
            number(stage.mean_r2(null=True), "z.2f"),
            number(None if untrained is None else untrained.mean_r2(), "z.2f"),
            _share(stage),
            number(None if untrained is None else untrained.beyond_two_nearest(), "z.2f"),
            number(stage.beyond_if_flat(), "z.2f"),
            number(len(stage.unpredicted()), "d"),
            number(stage.beyond_by_permutation(), "z.2f"),
        )
        for name, readings in results.items()
        for kind, stage, untrained in readings.pairs()
    ]
    return table("Importance of earlier layers; R² is the mean over layers, the interval is over images", heads, rows)


def _share(stage: StageGini) -> Cell:
    interval = stage.beyond_interval()
    return number(stage.beyond_two_nearest(), "z.2f", "" if interval is None else " [{:.2f}, {:.2f}]".format(*interval))


def _gradients(result: GradientResult) -> dict[str, object]:
    heads = (*HEADS, "mean, lowest", "mean, highest")
    rows: list[tuple[Cell | str, ...]] = []
    for group in result.over_seeds:
        for stage in group.stages:
            sizes = (stage.mean, stage.median, stage.std, stage.low, stage.high)
            counts = (number(stage.zeros, ",d"), number(stage.nonfinite, ",d"))
            rest = (stage.relative, stage.mean_lowest, stage.mean_highest)
            sized, others = ((number(size, ".2e") for size in some) for some in (sizes, rest))
            rows.append((group.label, number(stage.stage, "d"), *sized, *counts, *others))
    drawn = GradientResult(tuple(n for group in result.over_seeds[: len(COLORS)] for n in group.networks))
    alt = "Distribution of the absolute gradient by stage. " + " ".join(g.finding() for g in drawn.over_seeds)
    caption = (
        f"Absolute gradient at each stage's output, on a logarithmic axis, of {result.conditions}. The lines are the "
        "means; each seed of a network has one."
    )
    return {
        "table": table("Absolute gradient g at each stage's output; of several seeds the median", heads, rows),
        "figures": [_Figure(embed(gradient_distributions(drawn), alt), caption)],
    }


def _gradcam(given: Heatmaps) -> dict[str, object]:
    found, trust = given.found, given.found.trust
    shown, names = [r.take(slice(SHOWN)) for r in found.results], ", ".join(r.name for r in found.results)
    captions = found.captions()[:SHOWN]
    alt = f"Heatmaps of {names} on {len(captions)} images; the table below says what each network predicts"
    caption = (
        "What speaks for the class that each network predicts, on one color scale; a gray image means no evidence. "
        "Under the images stand their names and labels, under the maps the predicted classes and their scores."
    )
    return {
        "table": _gradcam_table(found),
        "figures": [_Figure(embed(heatmaps(shown, given.pictures, captions), alt, "png"), caption)],
        "layers": [
            f"{r.name}: {r.layer}, {'x'.join(map(str, r.layer_maps.shape[1:]))} positions" for r in found.results
        ],
        "warnings": trust.warnings() if trust else [],
        "checks": [_check(check, trust.num_images) for check in trust.checks] if trust else [],
        "agreements": [each.summary() for each in trust.agreements] if trust else [],
    }


def _check(check: TrustChecks, images: int) -> dict[str, object]:
    alt = f"Checks of the maps of {check.name}. {check.summary()}"
    figure = _Figure(
        embed(trust_checks(check.randomization, check.road), alt),
        f"{check.name}: how alike its maps stay when weights are destroyed, and its score when evidence is removed.",
    )
    return {"name": check.name, "images": images, "summary": check.summary(), "figure": figure}


def _gradcam_table(found: HeatmapComparison) -> Table:
    heads = ("image", "label", "network", "predicted", "score", "map's peak")
    rows = [
        (
            result.image_names[i],
            label or "not known",
            result.name,
            result.class_names[result.predicted[i]],
            number(float(result.score[i]), "z.3f"),
            Cell("none", "0") if result.empty[i] else number(float(result.cam_max[i]), ".3g"),
        )
        for i, label in enumerate(found.labels)
        for result in found.results
    ]
    return table("What each network predicts, and the largest evidence in its map", heads, rows)


def _cost(result: CostResult) -> dict[str, object]:
    compared = [network for network in result.networks if network.baseline not in (None, network.name)]
    alt = "Relative to the backbone without attention: " + "; ".join(
        f"{n.name} takes {_plain(n.latency_ratio)} times as long ({_interval(n)})" for n in compared
    )
    caption = (
        "Time, FLOPs and parameters relative to the same backbone without attention; the line is the 95 % interval of "
        "the time."
    )
    return {
        "table": _cost_table(result),
        "lacking": [line for network in result.networks for line in network.lacking()],
        "figures": [_Figure(embed(cost_ratios(result), alt), caption)] if compared else [],
    }


def _cost_table(result: CostResult) -> Table:
    heads = ("network", "parameters", "of attention", "MFLOPs", "ms a batch", "ratio", "95 % interval", "to")
    rows = [
        (
            network.name,
            number(network.parameters, ",d"),
            number(network.attention_parameters, ",d"),
            number(network.flops / 1e6, ",.1f"),
            number(network.latency_ms, "z.1f"),
            number(network.latency_ratio, "z.3f"),
            "–" if network.interval is None else "{:.3f} to {:.3f}".format(*network.interval),
            network.baseline or "–",
        )
        for network in result.networks
    ]
    return table("Cost of each network; FLOPs are of one image, a multiply-add counted as 2", heads, rows)


def _percent(share: float | None) -> Cell:
    cell = number(share, ".1%")
    return Cell(cell.text.replace("%", " %"), cell.value)


def _plain(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}"


def _interval(network: NetworkCost) -> str:
    low, high = network.interval or (nan, nan)
    return f"95 % interval {low:.2f} to {high:.2f}"
