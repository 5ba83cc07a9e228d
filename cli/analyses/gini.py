"""dia-analyze gini: networks and capture stores by how much importance lies beyond the two nearest layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.progress import Progress, TaskID

from cli.common.console import progress_bar
from cli.common.inputs import Inputs
from cli.common.publish import Found, Out
from dia_analysis import CaptureStore
from dia_analysis.importance.readings import GiniReadings, measure_readings
from dia_analysis.importance.rows import Rows
from dia_analysis.networks import compare_importance, importance_of
from dia_analysis.store.reader import stream_store
from dia_models import ModelInputError
from dia_models.attention.dia_lstm import hidden_states


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
    if hidden and points:
        raise ModelInputError("hidden", "--hidden and --points both say what to capture; give one of them")
    at = hidden_states(inputs.model) if hidden else points
    return Source(inputs.name, inputs.model.spec.name, inputs.images.data, inputs.images.names(), inputs, at)


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
        out.publish(Found.of(result, image_names=lambda: sources[0].images), taken)


def labels(sources: Sequence[Source]) -> list[str]:
    """The checkpoints' names; where they are the same, the network's or store's name, then a number, tells."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        names = [source.model for source in sources]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]
