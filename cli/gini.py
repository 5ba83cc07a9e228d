"""dia-analyze gini: measure, draw, and compare networks by how much importance lies beyond the two nearest layers."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import figures
from cli.console import progress_bar
from cli.inputs import Inputs
from cli.publishing import Found, Out
from dia_analysis import CaptureStore, GiniCollector, GiniResult, Provenance
from dia_analysis.output import write_json
from dia_analysis.probes.stream import Consume, stream_stages
from dia_analysis.store import stream_store
from dia_models import ModelInputError
from dia_models.attention import Attention
from dia_models.attention.dia_lstm import StackedLSTM

PAPER = (
    "The paper (Fig. 11, ResNet164 on CIFAR-100; it prints no number): with SE the importance lies in the previous one "
    "or two layers, with DIA-LSTM also in layers further back."
)


@dataclass(frozen=True)
class Maps:
    """Where the attention maps of one network come from; `stream` hands them on, batch by batch."""

    name: str
    model: str
    images: Sequence[str]
    provenance: Provenance
    stream: Callable[[Consume], int]


def of_network(inputs: Inputs, points: list[str] | None) -> Maps:
    """The maps of a network while it runs."""

    def stream(consume: Consume) -> int:
        images = stream_stages(inputs.model, inputs.batches(inputs.checkpoint.name), consume, points=points)
        inputs.report_unreadable()
        return images

    name = inputs.checkpoint.name
    return Maps(name, inputs.checkpoint.info.model.name, inputs.names(), inputs.provenance(), stream)


def of_store(path: Path) -> Maps:
    """The maps in a capture store."""
    store = CaptureStore.open(path)
    name = store.provenance.checkpoint or path.stem
    return Maps(name, path.stem, store.names, store.provenance, partial(stream_store, store))


def report(sources: list[Maps], out: Out, *, vector: bool, seed: int, as_json: bool) -> None:
    """Measure every network, print the tables or the JSON document, and write everything."""
    labels = _labels(sources)
    with out.folder("gini", labels, sources[0].provenance.data) as taken:
        named = zip(labels, sources, strict=True)
        results = {label: measure(source, label, vector=vector, seed=seed) for label, source in named}
        found(results, sources).publish(taken, as_json=as_json)


def found(results: dict[str, GiniResult], sources: list[Maps]) -> Found:
    """What to print and to write."""
    document = _document(results)
    about = {"networks": [source.provenance.to_dict() for source in sources]}

    def write(folder: Path) -> None:
        write_json(folder / "gini.json", document)
        _write_files(folder, results, sources)

    return Found(about, document, text(results), write)


def about(images: int) -> str:
    """What is measured."""
    return (
        f"Random forests predict a layer's attention from that of the earlier layers of its stage, on {images} images; "
        "R² is on images held out."
    )


def measure(source: Maps, label: str, *, vector: bool, seed: int) -> GiniResult:
    """Collect one network's maps and grow the forests, with a bar."""
    collector = GiniCollector(vector=vector, seed=seed)
    source.stream(collector.add)
    with progress_bar() as bar:
        task = bar.add_task(f"{label}: layers", total=None, detail="", visible=False)
        return collector.result(
            source.provenance,
            lambda finished, total: bar.update(task, completed=finished, total=total, visible=True),
        )


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


def text(results: dict[str, GiniResult]) -> str:
    """The tables, side by side where there are several, and the paper's claim."""
    parts = [f"{_head(name, result)}\n\n{result.summary()}" for name, result in results.items()]
    if len(results) > 1:
        parts.append(side_by_side(results))
    return "\n\n".join([*parts, PAPER])


def side_by_side(results: dict[str, GiniResult]) -> str:
    """The share of the importance beyond the two nearest layers, stage by stage, a column for each network."""
    stages = max(len(result.stages) for result in results.values())
    rows = [["stage", *results, "if flat"]]
    for i in range(stages):
        shown = [result.stages[i] if i < len(result.stages) else None for result in results.values()]
        flat = max((stage.beyond_if_flat() for stage in shown if stage), default=np.nan, key=np.nan_to_num)
        shares = [_share(stage.beyond_two_nearest()) if stage else "-" for stage in shown]
        rows.append([str(i + 1), *shares, "-" if np.isnan(flat) else f"{flat:.2f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(["Importance beyond the two nearest layers, ± its spread over five forests", "", *table])


def _head(name: str, result: GiniResult) -> str:
    rows = "images, whole vectors" if result.vector else "(image, channel) pairs"
    return f"{name} on {result.images} images of {result.provenance.data}: Gini importance, rows are {rows}"


def _share(repeats: np.ndarray) -> str:
    return "-" if np.isnan(repeats).any() else f"{repeats.mean():.3f} ± {repeats.std():.3f}"


def _attention(model: nn.Module) -> str:
    kinds = Counter(type(module).__name__ for module in model.modules() if isinstance(module, Attention))
    if not kinds:
        return "it has no attention at all"
    listed = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return f"its attention is {listed}; leave --hidden out to analyse that"


def _labels(sources: list[Maps]) -> list[str]:
    """The checkpoints' names; where they are the same, the network's or store's name, then a number, tells."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        names = [source.model for source in sources]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]


def _document(results: dict[str, GiniResult]) -> dict[str, Any]:
    """The document dia.gini/1 of the first network; the others' stand in `compared`."""
    first, *others = (result.to_dict() for result in results.values())
    return {**first, "compared": others} if others else first


def _write_files(folder: Path, results: dict[str, GiniResult], sources: list[Maps]) -> None:
    for number, result in enumerate(results.values(), 1):
        result.write_arrays(folder, f"network{number}-" if len(results) > 1 else "")
    (folder / "images.txt").write_text("\n".join(sources[0].images) + "\n", encoding="utf-8")
    if any(stage.numbers is not None for result in results.values() for stage in result.stages):
        figures.save_figure(figures.triangles(results), folder / "fig11-importance")
        figures.save_figure(figures.importance_arcs(results), folder / "fig12-structure")
