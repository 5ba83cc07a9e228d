"""dia-analyze correlation: measure, draw, compare with the network before training and with the paper."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

import figures
from cli.analyses.tally import Tally
from cli.common.inputs import Inputs
from cli.common.publish import Found, Out
from dia_analysis import CaptureStore, measure_correlation
from dia_analysis.paper.untrained import Baseline, BesideUntrained
from dia_analysis.results.words import quantity


def about(images: int) -> str:
    """What is measured."""
    return (
        "Pearson r between the attention maps of two layers of a stage, image by image, on "
        f"{quantity(images, 'image')}; and the same in the untrained network."
    )


def measure(inputs: Inputs, points: list[str] | None) -> BesideUntrained:
    """Correlate the layers of the network, and of the same before training, on the same images."""
    provenance, tally = inputs.provenance(), Tally(inputs)
    with tally.watching(inputs.model):
        trained = measure_correlation(inputs.model, tally.batches("trained"), points=points, provenance=provenance)
    return BesideUntrained(trained, *_baselines(inputs, points), tally.training())


def _baselines(inputs: Inputs, points: list[str] | None) -> tuple[Baseline, Baseline | None]:
    """The network before training: with the batch-norm statistics it had then, and with those of the images."""
    start, provenance = inputs.before_training(), inputs.provenance()

    def measured(label: str, statistics: str) -> Baseline:
        result = measure_correlation(start.model, inputs.batches(label), points=points, provenance=provenance)
        return Baseline(result, start.weights, statistics, start.exact)

    before = measured("before training", "as saved")
    images = inputs.reestimate(start.model)
    if not images:
        return replace(before, statistics=None), None
    return before, measured("re-estimated", f"re-estimated on {images} of the measured images")


def report(inputs: Inputs, points: list[str] | None, out: Out, *, as_json: bool) -> None:
    """Measure, print the tables or the JSON document, and write everything."""
    with out.folder("correlation", [inputs.checkpoint.name], inputs.data) as taken:
        outcome = measure(inputs, points)
        inputs.report_unreadable()
        found(outcome, inputs.names()).publish(taken, as_json=as_json)


def report_store(path: Path, out: Out, *, batch_size: int, as_json: bool) -> None:
    """The same from a capture store, which holds nothing from before training."""
    store = CaptureStore.open(path)
    origin = store.provenance
    with out.folder("correlation", [origin.checkpoint or path.stem], origin.data) as taken:
        outcome = BesideUntrained(measure_correlation(store, batch_size=batch_size))
        found(outcome, store.names).publish(taken, as_json=as_json)


def found(outcome: BesideUntrained, images: Sequence[str]) -> Found:
    """What to print and to write."""

    def write(folder: Path) -> None:
        outcome.write(folder, draw(outcome), images)

    return Found(outcome.about(), outcome.to_dict(), outcome.summary(), write)


def draw(outcome: BesideUntrained) -> dict[str, Figure]:
    """The paper's figures. Without a stage of two layers there is nothing to draw."""
    if not outcome.panels():
        return {}
    return {
        "fig2-matrices": figures.matrices(outcome.trained),
        "fig2c-distribution": figures.distribution(outcome.results()),
        "fig2ab-scatter": figures.scatter(outcome.trained, outcome.provenance.seed or 0),
    }
