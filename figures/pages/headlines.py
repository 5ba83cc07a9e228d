"""What came out, a sentence for each analysis: its number, and what this is to be held against."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import isnan
from statistics import median

from dia_analysis import AblationResult, CorrelationResult, CostResult, GradientResult, RegionsResult
from dia_analysis.paper.findings import alike
from dia_analysis.paper.untrained import BesideUntrained
from dia_analysis.results.words import quantity
from dia_analysis.statistics.intervals import Estimate
from dia_analysis.trust.checks import TrustReport
from dia_analysis.trust.heatmaps import HeatmapComparison
from dia_analysis.xray.regions import MASKS


def of_correlation(results: Mapping[str, BesideUntrained]) -> str:
    """The mean r of every network beside that before training, and with another image's map."""
    said = _listed(f"{_r(both.trained)} in {name}{_beside(both)}" for name, both in results.items())
    return f"Two layers of a stage have attention maps that correlate at r {said}."


def _r(result: CorrelationResult) -> str:
    return "undefined" if result.mean_r is None else f"{result.mean_r:z.2f}"


def _beside(both: BesideUntrained) -> str:
    other = both.trained.numbers.get("mean_r_other_image")
    held = [f"before training {_r(both.untrained)}"] if both.untrained is not None else []
    held += [f"with another image's map {other.value:z.2f}"] if other is not None and not isnan(other.value) else []
    return f" ({', '.join(held)})" if held else ""


def of_ablation(result: AblationResult) -> str:
    """The accuracy with every map replaced by its mean, beside that with another image's map."""
    said = []
    for network in result.networks:
        by = {one.replaced_by: one.scores for one in network.ablations}
        if isnan(network.accuracy.value):
            said.append(f"{_percent(by['mean'].changed.value)} of the predictions of {network.name} change")
            continue
        change = f"from {_percent(network.accuracy.value)} to {_percent(by['mean'].accuracy.value)}"
        said.append(
            f"the accuracy of {network.name} goes {change}, by another image's to "
            f"{_percent(by['resample'].accuracy.value)}"
        )
    return f"With every map replaced by its mean over images {_listed(said)}."


def of_gradients(result: GradientResult) -> str:
    """How the mean gradient changes from the last stage to the first."""
    said = [
        f"{10 ** median(group.mean_changes):.3g}-fold in {group.label}"
        for group in result.over_seeds
        if group.mean_changes
    ]
    if not said:
        return "Of the gradient nothing can be said from stage to stage."
    return f"From the last stage back to the first the mean |g| grows {_listed(said)}."


def of_heatmaps(found: HeatmapComparison) -> str:
    """How alike the networks' maps are, and whether they fail a check."""
    said = [alike(one, other)[0] for one, other in combinations(found.results, 2)]
    if found.trust is None:
        return " ".join([*said, "Whether the maps can be trusted was not checked."])
    return " ".join([*said, _failed(found.trust)])


def of_regions(result: RegionsResult, trust: TrustReport | None) -> str:
    """The share of the evidence in what is marked, beside that of a uniform map, and whether the checks are passed."""
    shares = {name: result.shares(name)[MASKS[0]] for name in result.networks}
    said = [f"{_with_ends(each.share)} in {name}" for name, each in shares.items()]
    area = next(iter(shares.values())).area
    checks = "" if trust is None else f" {_failed(trust)}"
    return (
        f"Of the evidence for what is predicted in {quantity(len(result.image_names), 'image')} {_listed(said)} lies "
        f"in the lungs, which take {_percent(area)} of the picture.{checks}"
    )


def _with_ends(share: Estimate) -> str:
    ends = f" [{100 * share.low:.0f}, {100 * share.high:.0f}]" if share.has_interval else ""
    return f"{100 * share.value:.0f} %{ends}"


def _failed(trust: TrustReport) -> str:
    failed, count = sum(bool(check.failures()) for check in trust.checks), len(trust.checks)
    return f"The maps of {failed} of {quantity(count, 'network')} fail a check of whether they can be trusted."


def of_cost(result: CostResult) -> str:
    """The time of every network beside its backbone."""
    said = [
        f"{one.name} {one.latency_ratio:.2f} times [{one.interval[0]:.2f}, {one.interval[1]:.2f}]"
        for one in result.networks
        if one.latency_ratio is not None and one.interval is not None and one.baseline != one.name
    ]
    return f"Of the time of its backbone without attention takes {_listed(said)}." if said else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
