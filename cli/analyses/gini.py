"""dia-analyze gini: networks and capture stores by how much importance lies beyond the two nearest layers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from rich.progress import Progress, TaskID
from torch import nn

import figures
from cli.common.console import progress_bar
from cli.common.inputs import Inputs
from cli.common.publish import Found, Out
from dia_analysis import CaptureStore
from dia_analysis.importance.readings import GiniReadings, measure_readings
from dia_analysis.importance.rows import Rows
from dia_analysis.networks import compare_importance, importance_of
from dia_analysis.store.reader import stream_store
from dia_models import ModelInputError
from dia_models.attention import Attention
from dia_models.attention.dia_lstm import StackedLSTM


@dataclass(frozen=True)
class Source:
    """Where attention maps come from: a network, of which those at the `points` are taken, or a store."""

    name: str
    model: str
    data: str | None
    images: Sequence[str]
    network: Inputs | None = None
    points: list[str] | None = None
    store: CaptureStore | None = None

    def measure(self, label: str, rows: Rows, seed: int, bar: Progress) -> GiniReadings:
        """Grow the forests, with a bar for each kind of rows."""
        tasks: dict[str, TaskID] = {}

        def progress(about: str, finished: int, total: int) -> None:
            if about not in tasks:
                tasks[about] = bar.add_task(f"{label}, {about}: layers", total=total, detail="")
            bar.update(tasks[about], completed=finished)

        if self.network is not None:
            return importance_of(self.network, self.points, rows=rows, progress=progress)
        assert self.store is not None
        stream, origin = partial(stream_store, self.store), self.store.provenance
        return measure_readings(stream, rows=rows, seed=seed, provenance=origin, progress=progress)


def of_network(inputs: Inputs, points: list[str] | None, *, hidden: bool) -> Source:
    """The maps of a network while it runs; the hidden states of its LSTMs if `hidden`."""
    at = hidden_points(inputs, points) if hidden else points
    spec = inputs.network.spec
    return Source(
        inputs.name, spec.name if spec else inputs.network.source, inputs.images.data, inputs.images.names(), inputs, at
    )


def of_store(path: Path) -> Source:
    """The maps in a capture store."""
    store = CaptureStore.open(path)
    origin = store.provenance
    return Source(origin.checkpoint or path.stem, path.stem, origin.data, store.names, store=store)


def report(sources: Sequence[Source], out: Out, *, rows: Rows, seed: int) -> None:
    """Measure every network, print the tables and what came out or the JSON document, and write everything."""
    named = dict(zip(labels(sources), sources, strict=True))
    with out.folder("gini", list(named), sources[0].data) as taken:
        with progress_bar() as bar:
            readings = {name: source.measure(name, rows, seed, bar) for name, source in named.items()}
        for source in sources:
            if source.network is not None:
                source.network.images.report_unreadable()
        known = {name: source.network.known for name, source in named.items() if source.network is not None}
        result = compare_importance(readings, known)
        out.publish(Found.of(result, lambda: draw(readings), lambda: sources[0].images), taken)


def draw(results: Mapping[str, GiniReadings]) -> dict[str, Figure]:
    """The paper's figures."""
    drawn = {name: readings.first for name, readings in results.items()}
    if not any(result.panels() for result in drawn.values()):
        return {}
    return {"fig11-importance": figures.triangles(drawn), "fig12-structure": figures.importance_arcs(drawn)}


def hidden_points(inputs: Inputs, points: list[str] | None) -> list[str]:
    """Where a network's LSTMs put out h_t. Raises ModelInputError for a network without one, or beside `points`."""
    if points:
        raise ModelInputError("hidden", "--hidden and --points both say what to capture; give one of them")
    found = [f"{name}.gate" for name, module in inputs.model.named_modules() if isinstance(module, StackedLSTM)]
    if not found:
        raise ModelInputError(
            "hidden",
            f"{inputs.name} has no DIA-LSTM and so no hidden state; {_attention(inputs.model)}",
        )
    return found


def _attention(model: nn.Module) -> str:
    kinds = Counter(type(module).__name__ for module in model.modules() if isinstance(module, Attention))
    if not kinds:
        return "it has no attention at all"
    listed = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return f"its attention is {listed}; leave --hidden out to analyse that"


def labels(sources: Sequence[Source]) -> list[str]:
    """The checkpoints' names; where they are the same, the network's or store's name, then a number, tells."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        names = [source.model for source in sources]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]
