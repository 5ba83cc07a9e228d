"""dia-analyze correlation: measure, draw, compare with the network before training and with the paper."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from cli.common.inputs import Inputs
from cli.common.publish import Found, Out
from dia_analysis import CaptureStore, measure_correlation
from dia_analysis.correlation.across import Across, measure_across
from dia_analysis.correlation.seeds import Seeds, over_seeds
from dia_analysis.paper.correlation import CorrelationComparison
from dia_analysis.paper.measure_untrained import measure_beside_untrained
from dia_analysis.paper.untrained import BesideUntrained
from dia_models import Checkpoint
from figures import correlation_figures as draw


@dataclass(frozen=True)
class What:
    """What is measured: the modules to capture, likenesses besides r and CKA, whether Fig. 2 is read in several ways,
    whether heads are compared by their numbers, and whether networks are compared with each other.
    """

    points: list[str] | None = None
    similarity: Sequence[str] = ()
    readings: bool = False
    by_index: bool = False
    across: bool = False


def measure(inputs: Inputs, what: What) -> BesideUntrained:
    """Correlate the layers of the network, and of the same before training, on the same images."""
    return measure_beside_untrained(
        inputs.model,
        inputs.answered,
        inputs.before_training(),
        recorded=inputs.known.recorded,
        points=what.points,
        similarity=what.similarity,
        readings=what.readings,
        by_index=what.by_index,
        patients=inputs.patients,
        seed=inputs.images.seed,
        provenance=inputs.provenance(),
    )


def compare(everyone: Sequence[Inputs], what: What) -> CorrelationComparison:
    """Measure all networks, those that differ in their seed alone together too, and each two if asked for."""
    results = {each.name: measure(each, what) for each in everyone}
    across = [_between(a, b, what) for a, b in combinations(everyone, 2)] if what.across else []
    return CorrelationComparison(results, tuple(_over_seeds(everyone, results)), tuple(across))


def report(everyone: Sequence[Inputs], what: What, out: Out) -> None:
    """Measure, print the tables or the JSON document, and write everything."""
    images = everyone[0].images
    with out.folder("correlation", [each.name for each in everyone], images.data) as taken:
        comparison = compare(everyone, what)
        images.report_unreadable()
        out.publish(Found.of(comparison, lambda: draw(comparison), images.names), taken, images.source)


def _over_seeds(everyone: Sequence[Inputs], results: dict[str, BesideUntrained]) -> list[Seeds]:
    runs: dict[Hashable, dict[int, Inputs]] = {}
    for each in everyone:
        if (checkpoint := each.network.checkpoint) is not None:
            runs.setdefault(_all_but_seed(checkpoint), {}).setdefault(checkpoint.info.seed, each)
    several = [list(some.values()) for some in runs.values() if len(some) > 1]
    return [
        over_seeds(some[0].network.model_name, {each.name: results[each.name].trained for each in some})
        for some in several
    ]


def _all_but_seed(checkpoint: Checkpoint) -> Hashable:
    """What runs of one network have in common: network, data and training."""
    return checkpoint.info.model_dump_json(include={"model", "data", "classes", "preprocessing", "recipe", "epoch"})


def _between(first: Inputs, second: Inputs, what: What) -> Across:
    label = f"{first.name} and {second.name}"
    shown = (first.batches(label), second.batches(label))
    return measure_across((first.name, first.model), (second.name, second.model), shown, points=what.points)


def report_store(path: Path, what: What, out: Out, *, batch_size: int) -> None:
    """The same from a capture store, which holds nothing from before training."""
    store = CaptureStore.open(path)
    origin = store.provenance
    with out.folder("correlation", [origin.checkpoint or path.stem], origin.data) as taken:
        how: Any = {"similarity": what.similarity, "by_index": what.by_index, "seed": origin.seed or 0}
        result = measure_correlation(store, batch_size=batch_size, **how)
        out.publish(found(BesideUntrained(result), store.names), taken)


def found(outcome: BesideUntrained, images: Sequence[str]) -> Found:
    """What to print and to write."""
    comparison = CorrelationComparison({outcome.provenance.checkpoint or "network": outcome})
    return Found.of(comparison, lambda: draw(comparison), lambda: images)
