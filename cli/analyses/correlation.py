"""dia-analyze correlation: measure, draw, compare with the network before training and with the paper."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

import figures
from cli.common.inputs import Inputs
from cli.common.publish import Found, Out
from dia_analysis import CaptureStore, measure_correlation
from dia_analysis.paper.measure_untrained import measure_beside_untrained
from dia_analysis.paper.untrained import BesideUntrained


def measure(inputs: Inputs, points: list[str] | None) -> BesideUntrained:
    """Correlate the layers of the network, and of the same before training, on the same images."""
    return measure_beside_untrained(
        inputs.model,
        inputs.answered,
        inputs.before_training(),
        recorded=inputs.recorded,
        points=points,
        provenance=inputs.provenance(),
    )


def report(inputs: Inputs, points: list[str] | None, out: Out) -> None:
    """Measure, print the tables or the JSON document, and write everything."""
    with out.folder("correlation", [inputs.checkpoint.name], inputs.images.data) as taken:
        outcome = measure(inputs, points)
        inputs.images.report_unreadable()
        out.publish(found(outcome, inputs.images.names()), taken)


def report_store(path: Path, out: Out, *, batch_size: int) -> None:
    """The same from a capture store, which holds nothing from before training."""
    store = CaptureStore.open(path)
    origin = store.provenance
    with out.folder("correlation", [origin.checkpoint or path.stem], origin.data) as taken:
        outcome = BesideUntrained(measure_correlation(store, batch_size=batch_size))
        out.publish(found(outcome, store.names), taken)


def found(outcome: BesideUntrained, images: Sequence[str]) -> Found:
    """What to print and to write."""
    return Found.of(outcome, lambda: draw(outcome), lambda: images)


def draw(outcome: BesideUntrained) -> dict[str, Figure]:
    """The paper's figures. Without a stage of two layers there is nothing to draw."""
    if not outcome.panels():
        return {}
    drawn = {
        "fig2-matrices": figures.matrices(outcome.trained),
        "fig2c-distribution": figures.distribution(outcome.results()),
        "fig2ab-scatter": figures.scatter(outcome.trained, outcome.provenance.seed or 0),
    }
    if any(stage.readings for stage in outcome.trained.stages):
        drawn["fig2d-parts"] = figures.correlation_parts(outcome.results())
    if any(stage.kind == "channel" and len(stage.stripes) > 1 for stage in outcome.trained.stages):
        drawn["stripes"] = figures.stripes(outcome.trained)
    return drawn
