"""dia-analyze gini: networks and capture stores by how much importance lies beyond the two nearest layers."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from cli.common.console import progress_bar
from cli.common.inputs import Inputs
from cli.common.options import GiniOptions
from cli.common.publish import Found, Out
from dia_analysis import CaptureStore
from dia_analysis.importance.readings import measure_readings
from dia_analysis.networks import compare_importance, importance_of
from dia_analysis.store.reader import stream_store
from dia_analysis.store.source import aligned_stages
from dia_models import ModelInputError
from dia_models.attention.dia_lstm import hidden_states


def report(networks: Sequence[Inputs], captures: Sequence[Path], given: GiniOptions, out: Out, *, seed: int) -> None:
    """Measure every network and store, print the tables and what came out or the JSON document, write everything."""
    if given.hidden and given.points:
        raise ModelInputError("hidden", "--hidden and --points both say what to capture; give one of them")
    stores = [CaptureStore.open(path) for path in captures]
    names = labels(
        [*(each.name for each in networks), *(s.provenance.checkpoint or s.path.stem for s in stores)],
        [*(each.network.model_name for each in networks), *(s.path.stem for s in stores)],
    )
    places = [hidden_states(each.model) if given.hidden else given.points for each in networks]
    jobs = [partial(importance_of, each, at) for each, at in zip(networks, places, strict=True)]
    about: list[Any] = [
        {"seed": seed, "provenance": store.provenance, "aligned": partial(aligned_stages, store, None)}
        for store in stores
    ]
    of_stores = [partial(measure_readings, partial(stream_store, s), **a) for s, a in zip(stores, about, strict=True)]
    data = networks[0].images.data if networks else stores[0].provenance.data
    with out.folder("gini", names, data) as taken:
        with progress_bar() as bar:
            measures = zip(names, [*jobs, *of_stores], strict=True)
            readings = {name: measure(rows=given.rows, progress=_progress(bar, name)) for name, measure in measures}
        for network in networks:
            network.images.report_unreadable()
        result = compare_importance(readings, {name: n.known for name, n in zip(names, networks, strict=False)})
        images = networks[0].images.names if networks else lambda: stores[0].names
        out.publish(Found.of(result, image_names=images), taken, networks[0].images.source if networks else None)


def _progress(bar: Progress, label: str) -> Callable[[str, int, int], None]:
    """What draws a bar for each kind of rows."""
    tasks: dict[str, TaskID] = {}

    def progress(about: str, finished: int, total: int) -> None:
        if about not in tasks:
            tasks[about] = bar.add_task(f"{label}, {about}: layers", total=total, detail="")
        bar.update(tasks[about], completed=finished)

    return progress


def labels(names: list[str], models: list[str]) -> list[str]:
    """The checkpoints' names; where they are the same, the network's or store's name, then a number, tells."""
    names = names if len(set(names)) == len(names) else models
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]
