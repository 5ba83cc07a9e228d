"""dia-analyze gini: measure, draw, and compare networks by how much importance lies beyond the two nearest layers."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.progress import TaskID
from torch import nn

import figures
from cli.common.attention import attention_of, known_trained
from cli.common.console import progress_bar
from cli.common.inputs import Inputs
from cli.common.publish import Found, Out
from dia_analysis import CaptureStore, Provenance
from dia_analysis.importance.readings import GiniReadings, measure_readings
from dia_analysis.importance.rows import ROWS_ARE, Rows
from dia_analysis.paper.findings import Attention as Kind
from dia_analysis.paper.importance import ImportanceComparison
from dia_analysis.probes.stream import Consume, stream_stages
from dia_analysis.store.reader import stream_store
from dia_models import ModelInputError
from dia_models.attention import Attention
from dia_models.attention.dia_lstm import StackedLSTM


@dataclass(frozen=True)
class Maps:
    """Where the attention maps of one network come from; `stream` hands them on, batch by batch.

    `untrained` hands on those of the network without its training, None if there is no such network. A store does not
    say what `attention` the network has, nor whether it was trained.
    """

    name: str
    model: str
    images: Sequence[str]
    provenance: Provenance
    stream: Callable[[Consume], int]
    untrained: Callable[[Consume], int] | None = None
    attention: Kind | None = None
    known_trained: bool = False


def of_network(inputs: Inputs, points: list[str] | None) -> Maps:
    """The maps of a network while it runs."""

    def stream(consume: Consume) -> int:
        images = stream_stages(inputs.model, inputs.batches(inputs.checkpoint.name), consume, points=points)
        inputs.images.report_unreadable()
        return images

    def untrained(consume: Consume) -> int:
        return stream_stages(
            inputs.before_training().model, inputs.batches(f"{name}, untrained"), consume, points=points
        )

    name = inputs.checkpoint.name
    about = (inputs.checkpoint.info.model.name, inputs.images.names(), inputs.provenance())
    return Maps(name, *about, stream, untrained, attention_of(inputs), known_trained(inputs))


def of_store(path: Path) -> Maps:
    """The maps in a capture store."""
    store = CaptureStore.open(path)
    name = store.provenance.checkpoint or path.stem
    return Maps(name, path.stem, store.names, store.provenance, partial(stream_store, store))


def report(sources: list[Maps], out: Out, *, rows: Rows, seed: int) -> None:
    """Measure every network, print the tables and what came out or the JSON document, and write everything."""
    names = labels(sources)
    with out.folder("gini", names, sources[0].provenance.data) as taken:
        named = zip(names, sources, strict=True)
        results = {name: measure(source, name, rows=rows, seed=seed) for name, source in named}
        out.publish(found(results, sources), taken)


def found(results: Mapping[str, GiniReadings], sources: list[Maps]) -> Found:
    """What to print and to write."""
    return Found.of(compare(results, sources), lambda: draw(results), lambda: sources[0].images)


def compare(results: Mapping[str, GiniReadings], sources: Sequence[Maps]) -> ImportanceComparison:
    """The networks side by side, with what is known of each."""
    attention = {name: source.attention for name, source in zip(results, sources, strict=True) if source.attention}
    unknown = [name for name, source in zip(results, sources, strict=True) if not source.known_trained]
    return ImportanceComparison(results, attention, unknown)


def draw(results: Mapping[str, GiniReadings]) -> dict[str, Figure]:
    """The paper's figures."""
    drawn = {name: readings.first for name, readings in results.items()}
    if not any(result.panels() for result in drawn.values()):
        return {}
    return {"fig11-importance": figures.triangles(drawn), "fig12-structure": figures.importance_arcs(drawn)}


def measure(
    source: Maps, label: str, *, rows: Rows, seed: int, untrained: Collection[Rows] = tuple(ROWS_ARE)
) -> GiniReadings:
    """Collect one network's maps and grow the forests, with a bar; of the untrained network by these rows only."""
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def progress(about: str, finished: int, total: int) -> None:
            task = tasks.get(about)
            if task is None:
                task = tasks[about] = bar.add_task(f"{label}, {about}: layers", total=total, detail="")
            bar.update(task, completed=finished)

        how: Any = {"rows": rows, "of_untrained": untrained, "seed": seed, "provenance": source.provenance}
        return measure_readings(source.stream, source.untrained, progress=progress, **how)


def hidden_points(inputs: Inputs, points: list[str] | None) -> list[str]:
    """Where a network's LSTMs put out h_t. Raises ModelInputError for a network without one, or beside `points`."""
    if points:
        raise ModelInputError("hidden", "--hidden and --points both say what to capture; give one of them")
    found = [f"{name}.gate" for name, module in inputs.model.named_modules() if isinstance(module, StackedLSTM)]
    if not found:
        raise ModelInputError(
            "hidden",
            f"{inputs.checkpoint.name} holds {inputs.checkpoint.info.model.name}, which has no LSTM and so no hidden "
            f"state; {_attention(inputs.model)}",
        )
    return found


def _attention(model: nn.Module) -> str:
    kinds = Counter(type(module).__name__ for module in model.modules() if isinstance(module, Attention))
    if not kinds:
        return "it has no attention at all"
    listed = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return f"its attention is {listed}; leave --hidden out to analyse that"


def labels(sources: Sequence[Maps]) -> list[str]:
    """The checkpoints' names; where they are the same, the network's or store's name, then a number, tells."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        names = [source.model for source in sources]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]
