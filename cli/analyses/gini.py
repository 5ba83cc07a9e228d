"""dia-analyze gini: measure, draw, and compare networks by how much importance lies beyond the two nearest layers."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import TaskID
from torch import nn

import figures
from cli.common.attention import attention_of, known_trained
from cli.common.console import progress_bar
from cli.common.inputs import Inputs
from cli.common.publish import Found, Out
from dia_analysis import CaptureStore, Provenance
from dia_analysis.importance.measure import aligned, share_text
from dia_analysis.importance.readings import GiniReadings, measure_readings
from dia_analysis.importance.rows import ROWS_ARE, Rows
from dia_analysis.paper.findings import Attention as Kind
from dia_analysis.paper.findings import Finding, gini_finding
from dia_analysis.probes.stream import Consume, stream_stages
from dia_analysis.results.output import write_json
from dia_analysis.results.words import quantity
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


def report(sources: list[Maps], out: Out, *, rows: Rows, seed: int, as_json: bool) -> None:
    """Measure every network, print the tables and what came out or the JSON document, and write everything."""
    names = labels(sources)
    with out.folder("gini", names, sources[0].provenance.data) as taken:
        named = zip(names, sources, strict=True)
        results = {name: measure(source, name, rows=rows, seed=seed) for name, source in named}
        found(results, sources).publish(taken, as_json=as_json)


def found(results: Mapping[str, GiniReadings], sources: list[Maps]) -> Found:
    """What to print and to write."""
    document = _document(results)
    about = {"networks": [source.provenance.to_dict() for source in sources]}

    def write(folder: Path) -> None:
        write_json(folder / "gini.json", document)
        _write_files(folder, results, sources)

    told = finding(results, sources)
    return Found(about, document, f"{text(results)}\n\n{told.text}\n{told.comparison()}", write)


def finding(results: Mapping[str, GiniReadings], sources: Sequence[Maps]) -> Finding:
    """What came out, beside what the paper says."""
    attention = {name: source.attention for name, source in zip(results, sources, strict=True) if source.attention}
    unknown = [name for name, source in zip(results, sources, strict=True) if not source.known_trained]
    return gini_finding(results, attention, unknown)


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


def text(results: Mapping[str, GiniReadings]) -> str:
    """The tables, side by side where there are several."""
    parts = [f"{_head(name, readings)}\n\n{readings.summary()}" for name, readings in results.items()]
    return "\n\n".join(parts + ([side_by_side(results)] if len(results) > 1 else []))


def side_by_side(results: Mapping[str, GiniReadings]) -> str:
    """The share of the importance beyond the two nearest layers, by stage and rows, a column for each network."""
    stages = max(len(readings.first.stages) for readings in results.values())
    kinds = list(next(iter(results.values())).trained)
    rows = [["stage", "rows", *results]]
    for i in range(stages):
        for kind in kinds:
            found = [readings.trained[kind].stages[i : i + 1] for readings in results.values()]
            rows.append([str(i + 1), kind, *(share_text(stage[0]) if stage else "-" for stage in found)])
    return f"Importance beyond the two nearest layers, with its 95 % interval over images\n\n{aligned(rows)}"


def _head(name: str, readings: GiniReadings) -> str:
    result = readings.first
    images = quantity(result.num_images, "image")
    return f"{name} on {images} of {result.provenance.data}: Gini importance, rows {result.rows}"


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


def _document(results: Mapping[str, GiniReadings]) -> dict[str, Any]:
    """The document dia.gini/1 of the first network; the others' stand in `compared`."""
    first, *others = (readings.to_dict() for readings in results.values())
    return {**first, "compared": others} if others else first


def _write_files(folder: Path, results: Mapping[str, GiniReadings], sources: list[Maps]) -> None:
    for number, readings in enumerate(results.values(), 1):
        network = f"network{number}-" if len(results) > 1 else ""
        for rows, result in readings.trained.items():
            result.write_arrays(folder, f"{network}{rows}-")
    (folder / "images.txt").write_text("\n".join(sources[0].images) + "\n", encoding="utf-8")
    drawn = {name: readings.first for name, readings in results.items()}
    if any(stage.numbers is not None for result in drawn.values() for stage in result.stages):
        figures.save_figure(figures.triangles(drawn), folder / "fig11-importance")
        figures.save_figure(figures.importance_arcs(drawn), folder / "fig12-structure")
