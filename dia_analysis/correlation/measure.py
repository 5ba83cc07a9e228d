"""How strongly do the attention maps of a stage's layers correlate? (section I and Fig. 2 of the paper)"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import torch
from torch import Tensor

from dia_analysis.correlation.results import CorrelationResult, StageCorrelation
from dia_analysis.distributed import all_gather
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.stages import StageMaps
from dia_analysis.results.provenance import Provenance
from dia_analysis.statistics.pearson import PearsonBetweenLayers
from dia_analysis.store.source import Source, open_source

EXAMPLES = 4


def measure_correlation(
    source: Source,
    batches: Tensor | Iterable[Any] | None = None,
    *,
    points: str | Iterable[str] | None = None,
    batch_size: int | None = None,
    provenance: Provenance | None = None,
) -> CorrelationResult:
    """Measure how the attention maps of a network's layers correlate, image by image, stage by stage.

    A network runs in evaluation mode and is left as it was. Memory does not grow with the number of images. Where
    several processes are joined (torchrun), each is given its own batches, and all get the result of all.
    The numbers from a float32 store of a network that computes in float32 are equal to the network's own, if the
    batches are as large. A float16 store rounds every map to 11 significant bits.

    Args:
        source: A network, or a capture store (or its path).
        batches: The network's input (batch, channel, height, width), alone or first in a tuple; it is moved to the
            network's device. None for a store.
        points: Shell patterns of module names, by default every attention gate. None for a store.
        batch_size: How many images are read from a store at a time, by default as many as were captured at a time.
        provenance: Where the network and the images come from; a store has its own.

    Returns:
        Pearson's r between the layers of each stage, over all images.

    Raises:
        AnalysisInputError: Nothing can be captured, there are no images, or the path is no whole capture store.
    """
    stream, known = open_source(source, batches, points, batch_size)
    streams: list[_StageStream] = []

    def add(stages: list[StageMaps]) -> None:
        streams.extend(map(_StageStream.start, stages if not streams else ()))
        for each, stage in zip(streams, stages, strict=True):
            each.add(stage)

    images = stream(add)
    add(_layout(streams))
    return _result(streams, images, provenance or known or Provenance())


def _layout(streams: list["_StageStream"]) -> list[StageMaps]:
    """The stages that every process has found, without images: a process that had none learns them from the others."""
    first, *others = filter(None, all_gather([stream.empty for stream in streams]))
    if any([stage.layers for stage in first] != [stage.layers for stage in other] for other in others):
        raise AnalysisInputError("model", "the network ran other layers in one process than in another")
    return first


@dataclass(frozen=True)
class _StageStream:
    """A stage while images stream through: its kind and layers, its statistics and the first images' maps.

    The examples are kept batch by batch, so that those of several processes can be put in order.
    """

    empty: StageMaps
    statistics: PearsonBetweenLayers
    examples: list[Tensor]

    @classmethod
    def start(cls, stage: StageMaps) -> "_StageStream":
        empty = replace(stage, maps=stage.maps.new_empty((0, *stage.maps.shape[1:]), device="cpu"))
        return cls(empty, PearsonBetweenLayers(len(stage.layers)), [])

    def add(self, stage: StageMaps) -> None:
        self.statistics.update(stage.maps, stage.made_in)
        missing = EXAMPLES - sum(map(len, self.examples))
        if missing > 0:
            self.examples.append(stage.maps[:missing].float().cpu().clone())

    def result(self, index: int) -> StageCorrelation:
        in_turn = chain.from_iterable(zip_longest(*all_gather(self.examples)))  # as processes take the batches in turn
        examples = torch.cat([maps for maps in in_turn if maps is not None])[:EXAMPLES]
        return StageCorrelation(
            stage=index,
            kind=self.empty.kind,
            layers=self.empty.layers,
            channels=self.empty.maps.shape[2],
            examples=examples.numpy(),
            **self.statistics.compute(),
        )


def _result(streams: list[_StageStream], images: int, provenance: Provenance) -> CorrelationResult:
    stages = tuple(stream.result(index) for index, stream in enumerate(streams, 1))
    weighted = [(stage.mean_r, stage.pairs - stage.undefined) for stage in stages if stage.mean_r is not None]
    count = sum(weight for _, weight in weighted)
    mean = sum(r * weight for r, weight in weighted) / count if count else None
    return CorrelationResult(stages, images, mean, provenance)
