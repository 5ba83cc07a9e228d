"""dia-analyze correlation: measure, draw, compare with the network before training and with the paper."""

from collections.abc import Sequence
from pathlib import Path

import figures
from cli.common.inputs import Inputs
from cli.common.publish import Found, Out
from dia_analysis import CaptureStore, measure_correlation
from dia_analysis.paper.measure_untrained import measure_beside_untrained
from dia_analysis.paper.untrained import BesideUntrained
from dia_analysis.results.output import write_json
from dia_analysis.results.words import quantity


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


def report(inputs: Inputs, points: list[str] | None, out: Out, *, as_json: bool) -> None:
    """Measure, print the tables or the JSON document, and write everything."""
    with out.folder("correlation", [inputs.checkpoint.name], inputs.images.data) as taken:
        outcome = measure(inputs, points)
        inputs.images.report_unreadable()
        found(outcome, inputs.images.names()).publish(taken, as_json=as_json)


def report_store(path: Path, out: Out, *, batch_size: int, as_json: bool) -> None:
    """The same from a capture store, which holds nothing from before training."""
    store = CaptureStore.open(path)
    origin = store.provenance
    with out.folder("correlation", [origin.checkpoint or path.stem], origin.data) as taken:
        outcome = BesideUntrained(measure_correlation(store, batch_size=batch_size))
        found(outcome, store.names).publish(taken, as_json=as_json)


def found(outcome: BesideUntrained, images: Sequence[str]) -> Found:
    """What to print and to write."""
    provenance = outcome.trained.provenance

    def write(folder: Path) -> None:
        write_json(folder / "correlation.json", outcome.to_dict())
        outcome.trained.write_arrays(folder)
        for prefix, baseline in (("untrained-", outcome.before), ("reestimated-", outcome.reestimated)):
            if baseline:
                baseline.result.write_arrays(folder, prefix)
        (folder / "images.txt").write_text("\n".join(images) + "\n", encoding="utf-8")
        draw(outcome, folder, provenance.seed or 0)

    return Found(provenance.to_dict(), outcome.to_dict(), text(outcome), write)


def text(outcome: BesideUntrained) -> str:
    """The tables and the finding."""
    origin = outcome.trained.provenance
    images = quantity(outcome.trained.num_images, "image")
    head = f"{origin.checkpoint or 'a network'} on {images} of {origin.data or 'unnamed data'}"
    tables = f"{head}: Pearson r between the attention maps of a stage's layers\n\n{outcome.trained.summary()}\n\n"
    if outcome.training and (accuracy := outcome.training.accuracy) is not None:
        tables += f"It gets {accuracy:.1%} of these images right.\n\n"
    for baseline in filter(None, (outcome.before, outcome.reestimated)):
        tables += f"{baseline.title()}\n\n{baseline.result.summary()}\n\n"
    finding = outcome.finding()
    return f"{tables}{finding.text}\n{finding.comparison()}"


def draw(outcome: BesideUntrained, folder: Path, seed: int) -> None:
    """Write the figures, as PNG and PDF. Without a stage of two layers there is nothing to draw."""
    if all(len(stage.layers) < 2 for stage in outcome.trained.stages):
        return
    figures.save_figure(figures.matrices(outcome.trained), folder / "fig2-matrices")
    figures.save_figure(figures.distribution(outcome.results()), folder / "fig2c-distribution")
    figures.save_figure(figures.scatter(outcome.trained, seed), folder / "fig2ab-scatter")
