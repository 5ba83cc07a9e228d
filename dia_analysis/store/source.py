"""Where attention maps come from: a network while it runs, or a capture store."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.common_channels import Aligned, of_stages
from dia_analysis.probes.stages import StageMaps
from dia_analysis.probes.stream import Consume, stream_stages
from dia_analysis.results.provenance import Provenance
from dia_analysis.store.reader import CaptureStore, stream_store

Source = nn.Module | CaptureStore | str | Path


def opened(source: Source) -> nn.Module | CaptureStore:
    """The network, or the store, which may be given by its path. Raises AnalysisInputError for a path that is none."""
    return source if isinstance(source, nn.Module | CaptureStore) else CaptureStore.open(source)


def aligned_stages(
    source: nn.Module | CaptureStore, images: Tensor | None, stages: Sequence[StageMaps]
) -> list[Aligned | None]:
    """For each stage, between which layers channel numbers mean the same, as far as that is known.

    `images` are two that the network has seen, None in a process that had none.
    """
    if isinstance(source, nn.Module):
        return of_stages(source, images, stages)
    return [source.common_channels.among(stage) for stage in stages]


def open_source(
    source: Source,
    batches: Tensor | Iterable[Any] | None,
    points: str | Iterable[str] | None,
    batch_size: int | None,
) -> tuple[Callable[[Consume], int], Provenance | None]:
    """What hands on the maps, stage by stage and batch by batch, and where they come from, if a store says it.

    Raises AnalysisInputError for a network without batches, a store with them, and a path that is no capture store.
    """
    if isinstance(source, nn.Module):
        if batches is None:
            raise AnalysisInputError("batches", "none given; a network needs batches of images")
        if batch_size is not None:
            raise AnalysisInputError("batch_size", f"{batch_size} given; a network gets the batches as they are")
        return partial(stream_stages, source, batches, points=points), None
    if batches is not None or points is not None:
        name = "points" if batches is None else "batches"
        raise AnalysisInputError(name, "given with a capture store, which holds the maps of its own; leave it out")
    store = opened(source)
    assert isinstance(store, CaptureStore)
    return partial(stream_store, store, batch_size=batch_size), store.provenance
