"""Which earlier layers predict a layer's attention? (section V-A and Fig. 11 of the paper)"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from torch import Tensor

from dia_analysis.errors import AnalysisInputError
from dia_analysis.importance.results import GiniResult, StageGini
from dia_analysis.importance.rows import ROWS_ARE, Rows, deviations, vectors
from dia_analysis.importance.sample import ImageSample
from dia_analysis.importance.together import UNLIKE, Gathered, gather
from dia_analysis.probes.alignment import NO_COMMON_MEANING
from dia_analysis.probes.common_channels import Aligned, Remembered
from dia_analysis.probes.stages import StageMaps
from dia_analysis.results.provenance import Provenance
from dia_analysis.store.source import Source, aligned_stages, open_source, opened

ROWS = 2**14  # (image, element) pairs of a stage, at most
ELEMENTS = 64  # of an image, at most, as rows: other images tell more than other elements of the same
VECTORS = 1024  # images of a stage, at most, as rows of whole vectors

Progress = Callable[[int, int], object]


def measure_importance(
    source: Source,
    batches: Tensor | Iterable[Any] | None = None,
    *,
    points: str | Iterable[str] | None = None,
    batch_size: int | None = None,
    rows: Rows = "centred",
    seed: int = 0,
    provenance: Provenance | None = None,
    progress: Progress = lambda finished, total: None,
) -> GiniResult:
    """Measure how much each earlier layer of a stage tells a random forest about each later one's attention map.

    Rows by channel are undefined where channel numbers have no common meaning; whole vectors need none, and are taken
    of all layers at once in a network whose layers mostly differ in width.
    At most 16,384 (image, channel) pairs, 64 of an image, or 1,024 images are kept. A network is left as it was.

    Args:
        source: A network, or a capture store (or its path).
        batches: The network's input (batch, channel, height, width), alone or first in a tuple; it is moved to the
            network's device. None for a store.
        points: Shell patterns of module names, by default every attention gate, which is h_t in DIA-LSTM. None for a
            store.
        batch_size: How many images are read from a store at a time, by default as many as were captured at a time.
        rows: "centred", a row for every (image, channel) pair, each channel's mean over the images subtracted, divided
            by its standard deviation; "raw", the same as captured, where forests mostly recognize the channel;
            "vector", a row for every image, each layer its whole vector.
        seed: Gives the forests of scikit-learn's `random_state`.
        provenance: Where the network and the images come from; a store has its own.
        progress: Is told how many layers are finished, of how many.

    Returns:
        Gini importance of each earlier layer for each later one, by stage, with its null and intervals.

    Raises:
        AnalysisInputError: Unknown rows, nothing can be captured, there are no images, or the path is no whole capture
            store.
    """
    collector = GiniCollector(rows=rows, seed=seed)
    source, given = opened(source), None if batches is None else Remembered(batches)
    stream, known = open_source(source, given, points, batch_size)
    stream(collector.add)
    images = None if given is None else given.images
    aligned = () if rows == "vector" else aligned_stages(source, images, collector.given)
    return collector.result(provenance or known, progress, aligned=aligned)


class GiniCollector:
    """Takes attention maps, batch by batch, from a network or a store, and then measures their importance.

    If `quick`, without the null and the intervals, which take half of the time.
    """

    def __init__(self, *, rows: Rows = "centred", seed: int = 0, quick: bool = False):
        if rows not in ROWS_ARE:
            raise AnalysisInputError("rows", f"unknown rows {rows!r}; give one of: {', '.join(ROWS_ARE)}")
        self.rows, self.seed, self.quick = rows, seed, quick
        self.given: list[StageMaps] = []
        self._gathered: list[Gathered] = []
        self._first: list[StageMaps] = []
        self._samples: list[ImageSample] = []

    def add(self, stages: list[StageMaps]) -> None:
        """Take the maps of some images, the same stages each time."""
        if not self.given:
            self.given = stages
            self._gathered = gather(stages)
        stages = [each.of(stages) for each in self._gathered]
        if not self._first:
            self._first = stages
            self._samples = [self._sample(stage.maps.shape[2]) for stage in stages]
        for sample, stage in zip(self._samples, stages, strict=True):
            sample.update(stage.maps)

    def result(
        self,
        provenance: Provenance | None = None,
        progress: Progress = lambda finished, total: None,
        *,
        aligned: Sequence[Aligned | None] = (),
    ) -> GiniResult:
        """Grow the forests: the long part. `aligned` says of each stage given which layers' channels correspond."""
        reasons = [self._why_not(each, aligned) for each in self._gathered]
        grown = [stage for stage, reason in zip(self._first, reasons, strict=True) if not reason]
        total = sum(len(stage.layers) - 1 for stage in grown)
        finished = iter(range(1, total + 1))
        stages = tuple(
            self._stage(number, reason, lambda: progress(next(finished), total))
            for number, reason in enumerate(reasons, 1)
        )
        images = max((int(sample.seen) for sample in self._samples), default=0)
        return GiniResult(stages, images, self.rows, provenance or Provenance(seed=self.seed))

    def _why_not(self, stage: Gathered, aligned: Sequence[Aligned | None]) -> str:
        """Why rows by channel say nothing of a stage; empty where they do."""
        if self.rows == "vector":
            return ""
        if stage.unlike:
            return UNLIKE
        known = aligned[stage.places[0]] if aligned else None
        return "" if known is None or bool(known.all()) else NO_COMMON_MEANING

    def _sample(self, elements: int) -> ImageSample:
        if self.rows == "vector":
            return ImageSample(VECTORS, elements, self.seed)
        kept = min(elements, ELEMENTS)
        return ImageSample(ROWS // kept, kept, self.seed)

    def _stage(self, number: int, undefined: str, done: Callable[[], object]) -> StageGini:
        from dia_analysis.importance.layer_forests import measure  # late: its compiler takes a second to load

        first, sample = self._first[number - 1], self._samples[number - 1]
        maps, vector = sample.compute(), self.rows == "vector"
        rows = len(maps) if vector else maps[:, 0].size
        enough = not undefined and len(first.layers) > 1 and (rows if self.rows == "raw" else len(maps)) > 1
        varying = deviations(maps)[1].sum(1) if len(maps) else np.zeros(len(first.layers), int)
        return StageGini(
            stage=number,
            kind=first.kind,
            layers=first.layers,
            num_images=len(maps),
            elements=maps.shape[2],
            rows=rows,
            left_out=int(sample.left_out),
            varying=tuple(map(int, varying)),
            constant=_constant(maps, varying, self.rows),
            between_channels=None if vector or undefined else _between_channels(maps),
            explained=vectors(maps).explained if vector and enough else None,
            numbers=measure(maps, self.rows, self.seed, done, quick=self.quick) if enough else None,
            undefined=undefined,
        )


def _constant(
    maps: Float32[np.ndarray, "image layer element"], varying: Int64[np.ndarray, "layer"], rows: Rows
) -> tuple[int, ...]:
    """The layers, counted from 1, in which no forest can split: raw values that differ by less than 1e-7."""
    if len(maps) < (1 if rows == "raw" else 2):
        return ()
    same = np.ptp(maps, axis=(0, 2)) <= 1e-7 if rows == "raw" else varying == 0
    return tuple(int(layer) + 1 for layer in np.flatnonzero(same))


def _between_channels(maps: Float32[np.ndarray, "image layer element"]) -> float | None:
    """The share of variance between the means of elements, mean over the layers that vary."""
    values = maps.astype(np.float64)
    if not len(values):
        return None
    variance = values.var((0, 2))
    varies = variance > 0
    return float((values.mean(0).var(1)[varies] / variance[varies]).mean()) if varies.any() else None
