"""How strongly do the attention maps of a stage's layers correlate? (section I and Fig. 2 of the paper)"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dia_analysis.correlation.alignment import Alignment, BatchedAlignment, align
from dia_analysis.correlation.chance import similarities, stage_null
from dia_analysis.correlation.heads import match_heads
from dia_analysis.correlation.held import Block, HeldMaps, Patients, everyones
from dia_analysis.correlation.likeness import heads_of
from dia_analysis.correlation.parts import over_pairs
from dia_analysis.correlation.readings import StageReadings, distances, estimates, overall
from dia_analysis.correlation.results import CorrelationResult, NetworkAlignment, StageCorrelation
from dia_analysis.correlation.similarity_names import check_similarities
from dia_analysis.correlation.stage_stream import EXAMPLES, StageStream
from dia_analysis.distributed import all_gather
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.common_channels import Aligned, Remembered, of_stages
from dia_analysis.probes.stages import StageMaps
from dia_analysis.probes.stream import Consume
from dia_analysis.results.provenance import Provenance
from dia_analysis.store.reader import CaptureStore
from dia_analysis.store.source import Source, open_source, opened


def measure_correlation(
    source: Source,
    batches: Tensor | Iterable[Any] | None = None,
    *,
    points: str | Iterable[str] | None = None,
    batch_size: int | None = None,
    similarity: str | Iterable[str] = (),
    by_index: bool = False,
    patients: Patients | None = None,
    seed: int = 0,
    like: CorrelationResult | None = None,
    provenance: Provenance | None = None,
) -> CorrelationResult:
    """Measure how the attention maps of a network's layers correlate, image by image, stage by stage.

    Of r, how much is static and how much depends on the image; the same in other readings, with CKA, by distance
    between layers, with intervals over images, and by chance. A network runs in evaluation mode and is left as it was.
    Maps of up to 1 GiB are held; of more, the network runs twice over the images, and memory does not grow further.
    Where several processes are joined (torchrun), each is given its own batches, and all get the result of all.
    The numbers from a float32 store of a network that computes in float32 are equal to the network's own, if the
    batches are as large. A float16 store rounds every map to 11 significant bits.

    Args:
        source: A network, or a capture store (or its path).
        batches: The network's input (batch, channel, height, width), alone or first in a tuple; it is moved to the
            network's device. None for a store.
        points: Shell patterns of module names, by default every attention gate. None for a store.
        batch_size: How many images are read from a store at a time, by default as many as were captured at a time.
        similarity: What to measure besides r and CKA, with other vectors made of each map: "spearman", r of ranks;
            "cosine", without centering; "logit", r of what goes into the sigmoid; "sorted", r of the values by size,
            which shows how alike their distributions are. "pearson" and "cka" may be named too.
        by_index: Whether heads of self-attention are compared head 1 with head 1 and so on, though they have no order;
            by default their mean is, and matched heads stand beside.
        patients: Whose each image is, in the order in which this process sees them: images of one patient are left out
            together for the intervals; or a function that gives those of the images seen so far. By default each image
            is of another.
        seed: Of what is drawn at random: channels and images in another order.
        like: The result of a network built alike, in which the same layers are aligned: it is not found out again.
        provenance: Where the network and the images come from; a store has its own.

    Returns:
        Pearson's r between the layers of each stage, over all images.

    Raises:
        AnalysisInputError: Nothing can be captured, there are no images, the path is no whole capture store, or a
            similarity is unknown.
    """
    source, given = opened(source), None if batches is None else Remembered(batches)
    stream, known = open_source(source, given, points, batch_size)
    held, repeatable = HeldMaps(patients), not isinstance(batches, Iterator)
    measurement = _Measurement(stream, held, seed, repeatable, check_similarities(similarity), by_index)
    measurement.run()
    images = None if given is None else given.images
    aligned = _aligned(source, images, measurement.stages, () if like is None else like.stages)
    return measurement.result(provenance or known or Provenance(), aligned)


def _aligned(
    source: nn.Module | CaptureStore,
    images: Tensor | None,
    stages: Sequence[StageMaps],
    like: Sequence[StageCorrelation],
) -> list[Aligned | None]:
    """For each stage, between which layers r has a meaning, as far as it is known."""
    known = {stage.layers: stage.aligned for stage in like}
    if all(stage.layers in known for stage in stages):
        return [None if (found := known[stage.layers]) is None else torch.from_numpy(found) for stage in stages]
    if isinstance(source, nn.Module):
        return of_stages(source, images, stages)
    return [source.common_channels.among(stage) for stage in stages]


@dataclass
class _Measurement:
    """The passes over the images, and what they leave. `block` are all maps, None where they did not fit."""

    stream: Callable[[Consume], int]
    held: HeldMaps
    seed: int
    repeatable: bool
    similarities: tuple[str, ...] = ()
    by_index: bool = False
    images: int = 0
    block: Block | None = None
    alignment: Alignment | None = None
    sample: Block | None = None

    def run(self) -> None:
        """Run the network once, or twice where the maps are too large to be held."""
        self.streams: list[StageStream] = []
        self.overflowed = False
        self.images = self.stream(self._add)
        self._add(_layout(self.streams))
        whole = not any(all_gather(self.overflowed))
        self._first(self.held.waiting)
        for stage in self.streams:
            stage.end_first()
        if whole:
            self._second_of_held()
        elif self.repeatable:
            self._second_run()

    @property
    def stages(self) -> list[StageMaps]:
        """The stages as the network gives them, without images."""
        return [stream.given for stream in self.streams]

    def _add(self, stages: list[StageMaps]) -> None:
        if not self.streams:
            self.streams = [StageStream(stage, self.similarities, by_index=self.by_index) for stage in stages]
        for each, stage in zip(self.streams, stages, strict=True):
            each.keep(stage.maps)
        self.held.add(stages)
        if self.held.full:
            self.overflowed = True
            self._first(self.held.waiting)
            self.held.waiting.clear()

    def _first(self, waiting: list[Block]) -> None:
        if waiting:
            block = Block.of(waiting)
            for stage, maps in zip(self.streams, block.stages, strict=True):
                stage.add(maps, block.groups)

    def _second(self, block: Block) -> None:
        for stage, maps in zip(self.streams, block.stages, strict=True):
            stage.add_again(maps, block.groups)

    def _second_of_held(self) -> None:
        if self.held.waiting:
            self._second(Block.of(self.held.waiting))
        self.block = self.sample = everyones(self.held.waiting)
        assert self.block is not None  # every process holds at least the layout
        self.alignment = align(self.block, self.stages)

    def _second_run(self) -> None:
        self.held = self.held.again()
        batched = BatchedAlignment(self.stages, self.seed)

        def use() -> None:
            block = Block.of(self.held.waiting)
            self.sample = self.sample or block
            self._second(block)
            batched.add(block)
            self.held.waiting.clear()

        def add(stages: list[StageMaps]) -> None:
            self.held.add(stages)
            if self.held.full:
                use()

        self.stream(add)
        self.held.add(self.stages)
        use()
        self.alignment = batched.result()
        self.sample = all_gather(self.sample)[0]

    def result(self, provenance: Provenance, aligned: list[Aligned | None]) -> CorrelationResult:
        """What was found; `aligned` says for each stage between which layers r has a meaning, as far as it is known."""
        stages, first = [], 0
        for number, stream in enumerate(self.streams, 1):
            readings = self._readings(number - 1, first) if self.alignment else None
            known = aligned[number - 1]
            stages.append(_stage(number, stream, readings).where_aligned(None if known is None else known.numpy()))
            first += len(stream.empty.layers)
        weighted = [(stage.mean_r, stage.pairs - stage.undefined) for stage in stages if stage.mean_r is not None]
        count = sum(weight for _, weight in weighted)
        mean = sum(r * weight for r, weight in weighted) / count if count else None
        weights = [(len(stage.layers) * (len(stage.layers) - 1) // 2, len(stage.layers)) for stage in stages]
        numbers = overall([stage.readings for stage in stages], weights)
        return CorrelationResult(tuple(stages), self.images, mean, provenance, numbers, self._network_alignment())

    def _readings(self, index: int, first: int) -> StageReadings:
        assert self.alignment is not None
        assert self.sample is not None
        stream = self.streams[index]
        parts = stream.parts()
        layers = len(stream.empty.layers)
        never = np.logical_not(parts.varies.any(axis=1))
        matrices = parts.matrices | self.alignment.of_stage(first, layers)
        for name in ("cka", "cka_without_gain"):
            matrices[name] = np.where(never[:, None] | never, np.nan, matrices[name])
        means = parts.means | {name: over_pairs(matrices[name]) for name in ("cka", "cka_without_gain")}
        sample = stream.compared(self.sample.stages[index])
        null, permuted = stage_null(sample, stream, parts, self.seed)
        return StageReadings(
            images=parts.images,
            numbers=estimates(means, parts.sizes),
            matrices={name: values[0] for name, values in matrices.items()},
            by_layer={name: values[0] for name, values in parts.by_layer.items()},
            distances=distances(matrices, parts.sizes, permuted),
            mean_map=parts.mean_map,
            channel_std=parts.channel_std,
            logit_std=None if stream.logits is None else stream.logits.compute().numpy(),
            varies=parts.varies,
            constant_deviations=stream.deviation_totals.constant,
            rounding_share=parts.rounding_share,
            null=null,
            cka_batches=self.alignment.batches,
            cka_undefined=int(np.isnan(np.diagonal(matrices["cka"][0])).sum()),
            sizes=parts.sizes,
            similarities=similarities(sample, stream, parts.sizes, self.seed),
            heads=match_heads(stream.heads, self.seed) if stream.heads else None,
            by_index=self.by_index and heads_of(stream.given) > 1,
            without={name: values[1:] for name, values in means.items() if len(values) > 1},
        )

    def _network_alignment(self) -> NetworkAlignment | None:
        """CKA of all layers, where there is more than one stage."""
        if self.alignment is None or len(self.streams) < 2:
            return None
        layers = tuple(layer for stage in self.stages for layer in stage.layers)
        numbers = tuple(number for number, stage in enumerate(self.stages, 1) for _ in stage.layers)
        return NetworkAlignment(layers, numbers, self.alignment.matrices[0], self.alignment.without_gain[0])


def _layout(streams: list[StageStream]) -> list[StageMaps]:
    """The stages that every process has found, without images: a process that had none learns them from the others."""
    first, *others = filter(None, all_gather([stream.given for stream in streams]))
    if any([stage.layers for stage in first] != [stage.layers for stage in other] for other in others):
        raise AnalysisInputError("model", "the network ran other layers in one process than in another")
    return first


def _stage(number: int, stream: StageStream, readings: StageReadings | None) -> StageCorrelation:
    kept = stream.first_images()
    return StageCorrelation(
        stage=number,
        kind=stream.empty.kind,
        layers=stream.empty.layers,
        channels=stream.empty.maps.shape[2],
        examples=kept[:EXAMPLES],
        stripes=kept,
        readings=readings,
        **stream.statistics.compute(),
    )
