"""dia-analyze correlation: measure, draw, compare with an untrained copy and with the paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import figures
from cli.console import note, say, say_json
from cli.inputs import Inputs
from dia_analysis import CaptureStore, CorrelationResult, correlate_layers, correlate_store
from dia_analysis.correlation import PAPER_MEAN_R
from dia_analysis.output import check_free, new_directory, write_json
from dia_analysis.processes import rank

PAPER = f"average r above {PAPER_MEAN_R} (Fig. 2: SE and ECA; ResNet164 on CIFAR-100, ResNet50 on ImageNet)"


@dataclass(frozen=True)
class Outcome:
    """What was measured on a trained network and, unless its maps came from a store, on an untrained copy of it."""

    trained: CorrelationResult
    untrained: CorrelationResult | None

    def to_dict(self) -> dict[str, Any]:
        """The document dia.correlation/1, with the untrained copy's and the paper's numbers besides."""
        other = self.untrained.to_dict() if self.untrained else {}
        copy = {key: value for key, value in other.items() if key in ("mean_r", "stages")}
        return {**self.trained.to_dict(), "untrained": copy or None, "paper_mean_r": PAPER_MEAN_R}

    def finding(self) -> str:
        """What came out, in a sentence or two."""
        trained, untrained = self.trained.mean_r, self.untrained.mean_r if self.untrained else None
        if trained is not None and self.untrained is None:
            return (
                f"Mean r is {trained:.2f}. A store holds no untrained copy of the network to compare with: "
                "correlation --ckpt tells what training did."
            )
        if trained is None or untrained is None:
            return "There is no defined correlation, so nothing can be said about shared attention."
        if any(call for stage in self.trained.stages for _, call in stage.layers):
            return (
                f"Mean r is {trained:.2f}; the same network untrained has {untrained:.2f}.\n"
                "Here one module serves several layers, which makes their maps alike before any training; the paper's "
                f"{PAPER} is about one module per layer."
            )
        verdict = "holds" if trained >= PAPER_MEAN_R else "does not hold"
        learned = (
            "training raised it"
            if trained > untrained + 0.05
            else ("training lowered it" if trained < untrained - 0.05 else "training hardly changed it")
        )
        return (
            f"Mean r is {trained:.2f}; the same network untrained has {untrained:.2f}, so {learned}.\n"
            f"The paper's {PAPER}: {verdict} here."
        )

    def draw(self, folder: Path, seed: int) -> None:
        """Write the figures, as PNG and PDF. Without a stage of two layers there is nothing to draw."""
        if all(len(stage.layers) < 2 for stage in self.trained.stages):
            return
        figures.save_figure(figures.matrices(self.trained), folder / "fig2-matrices")
        each = {"trained": self.trained} | ({"untrained": self.untrained} if self.untrained else {})
        figures.save_figure(figures.distribution(each), folder / "fig2c-distribution")
        figures.save_figure(figures.scatter(self.trained, seed), folder / "fig2ab-scatter")


def measure(inputs: Inputs, points: list[str] | None) -> Outcome:
    """Correlate the layers of the network and of an untrained copy, on the same images."""
    provenance = inputs.provenance()
    trained = correlate_layers(inputs.model, inputs.batches("trained"), points=points, provenance=provenance)
    untrained = correlate_layers(inputs.untrained(), inputs.batches("untrained"), points=points, provenance=provenance)
    return Outcome(trained, untrained)


def report(inputs: Inputs, points: list[str] | None, out: Path, *, overwrite: bool, as_json: bool) -> Outcome:
    """Measure, write everything into `out`, and print the tables or the JSON document."""
    check_free(out, overwrite)
    outcome = measure(inputs, points)
    inputs.report_unreadable()
    publish(outcome, inputs.names(), out, overwrite=overwrite, as_json=as_json)
    return outcome


def report_store(path: Path, out: Path, *, batch_size: int, overwrite: bool, as_json: bool) -> Outcome:
    """The same from a capture store, without the comparison with an untrained copy."""
    check_free(out, overwrite)
    store = CaptureStore.open(path)
    outcome = Outcome(correlate_store(store, batch=batch_size), None)
    publish(outcome, store.names, out, overwrite=overwrite, as_json=as_json)
    return outcome


def publish(outcome: Outcome, images: Sequence[str], out: Path, *, overwrite: bool, as_json: bool) -> None:
    """Write everything into `out`, and print the tables or the JSON document; of several processes, the first does."""
    if rank():
        return
    provenance = outcome.trained.provenance
    with new_directory(out, provenance.to_dict(), overwrite=overwrite) as folder:
        write_json(folder / "correlation.json", outcome.to_dict())
        outcome.trained.write_arrays(folder)
        if outcome.untrained:
            outcome.untrained.write_arrays(folder, "untrained-")
        (folder / "images.txt").write_text("\n".join(images) + "\n", encoding="utf-8")
        outcome.draw(folder, provenance.seed or 0)
    if as_json:
        say_json(outcome.to_dict())
    else:
        say(text(outcome))
    note(f"written to {out}/")


def text(outcome: Outcome) -> str:
    """The tables and the finding."""
    origin = outcome.trained.provenance
    head = f"{origin.checkpoint or 'a network'} on {outcome.trained.images} images of {origin.data or 'unnamed data'}"
    tables = f"{head}: Pearson r between the attention maps of a stage's layers\n\n{outcome.trained.summary()}\n\n"
    if outcome.untrained:
        tables += f"The same network, untrained\n\n{outcome.untrained.summary()}\n\n"
    return tables + outcome.finding()
