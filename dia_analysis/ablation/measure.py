"""Does the attention of a trained network matter, and does its dependence on the image?"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dia_analysis.ablation.conditions import Condition, conditions_of
from dia_analysis.ablation.donors import Donors
from dia_analysis.ablation.fitting import Average, MapAverage
from dia_analysis.ablation.images import UNKNOWN, LabelledBatches
from dia_analysis.ablation.outcomes import NOTHING, Answers, AnswersByImage, score
from dia_analysis.ablation.recalibrating import Recalibration
from dia_analysis.ablation.replacements import REPLACEMENTS, check_replacements
from dia_analysis.ablation.results import Ablation, AblationResult, NetworkAblation
from dia_analysis.ablation.running import Layer, ReplaceableMaps
from dia_analysis.ablation.swapping import MATCHED, MOST_PASSES, PERMUTED, passes_of, swap_conditions, swap_score
from dia_analysis.ablation.targets import choose_targets
from dia_analysis.errors import AnalysisInputError
from dia_analysis.probes.alignment import NO_COMMON_MEANING, aligned_layers
from dia_analysis.results.provenance import Provenance
from dia_analysis.results.words import quantity
from dia_analysis.statistics.intervals import Estimate, Patients

BOTH_HALVES = "Every other image gave the means: a patient with several images may be among these and those judged."
Announce = Callable[[int, float], object]
ImagePatients = Sequence[str] | Callable[[], Sequence[str]]


def measure_ablation(
    model: nn.Module,
    batches: Any,
    fit_batches: Any = None,
    *,
    replace_by: Sequence[str] = tuple(REPLACEMENTS),
    layers: Sequence[str] | None = None,
    points: str | Iterable[str] | None = None,
    freeze_others: bool = False,
    state: bool = False,
    recalibrate_bn: bool = False,
    swap: bool | None = None,
    patients: ImagePatients | None = None,
    seed: int = 0,
    name: str | None = None,
    announce: Announce | None = None,
    provenance: Provenance | None = None,
) -> AblationResult:
    """Replace the attention maps of a classifier while it runs, and see what that does to its predictions.

    What is replaced is the map in its product with features or values: whatever else reads it, such as the cell of an
    LSTM, keeps the network's own, unless `state` is given. The network runs in evaluation mode and is left as it was.

    Args:
        model: Any network that gives (image, class).
        batches: Images and labels (batch, channel, height, width), (batch,); gone through several times, so an
            iterator is kept in memory. Without labels there is no accuracy and no loss.
        fit_batches: Other images, which give the means; by default every other one of the images is taken for this.
        replace_by: What takes a map's place: "mean" (over images), "resample" (another image's, one for all layers,
            five draws), "resample-half" (as far from the own map as the mean is, toward another image's), "constant"
            (one number for a layer; of self-attention the same weight for all keys), "one" (no attention).
        layers: What is replaced together: "all", a stage such as "2", a layer such as "2.3", or "each" for each layer
            by itself; by default each stage, and all.
        points: Shell patterns of names that `find_points` gives; by default all attention that is usable.
        freeze_others: Whether the other layers keep the untouched network's maps (the direct effect) or compute them
            from what they then see (the total one). Single layers have both.
        state: Whether what reads a map later, such as the next step of an LSTM, sees what took its place, too.
        recalibrate_bn: Whether batch norms get new statistics for each replacement from the images that give the
            means; the untouched network does, too.
        swap: Whether each layer's map is also replaced by those of the other layers of its stage with which its
            channels are aligned; by default where that takes at most 50 passes of the images.
        patients: Whose each image is, in order, or a function that gives those of the images gone through: intervals
            then take images of one patient together. By default each image is of another.
        seed: Of the draws.
        name: The network's name, in tables.
        announce: Is told, before the long part, how often the network will run over all images, and about how many
            seconds that will take.
        provenance: Where the network and the images come from.

    Returns:
        By layers and replacement: accuracy, loss, how both change, the share of predictions that change, and the KL
        divergence from the untouched network, in nats.

    Raises:
        AnalysisInputError: Nothing can be replaced, there are fewer than two images, the network is no classifier,
            or its answers are not finite on any image.
    """
    check_replacements(replace_by)
    own = LabelledBatches(batches)
    fit, evaluated = own.halves() if fit_batches is None else (LabelledBatches(fit_batches), own)
    with ReplaceableMaps.of(model, points, seed, state=state) as maps:
        recalibration = Recalibration(maps, fit) if recalibrate_bn else None
        if recalibration is not None:
            recalibration.untouched()
        averages, fit_images, left_out = _averages(maps, fit)
        conditions = conditions_of(
            maps.layers, choose_targets(maps.layers, layers, freeze_others=freeze_others), replace_by
        )
        swaps, unswapped = _swaps(maps, fit, swap, seed)
        ablation = _Run(
            maps, averages, conditions, swaps, Donors(seed), recalibration, seed, patients, fit_batches is None
        )
        ablation.look(evaluated)
        if announce is not None:
            announce(ablation.passes, ablation.seconds)
        ablation.run(evaluated)
        notes = [*_left_out(maps.layers, left_out), *ablation.notes(), *unswapped]
        if patients is not None and fit_batches is None:
            notes.append(BOTH_HALVES)
    about = provenance or Provenance(seed=seed)
    network = ablation.result(name or about.checkpoint or type(model).__name__, fit_images, notes)
    return AblationResult((replace(network, state=state),), about)


def _averages(maps: ReplaceableMaps, fit: LabelledBatches) -> tuple[list[Average], int, list[int]]:
    """Each layer's average over the fit images, how many these are, and how many each layer left out."""
    found: list[MapAverage] = []
    images = 0
    for batch in fit:
        _, taken = maps.untouched(batch.images)
        found = found or [MapAverage(layer) for layer in maps.layers]
        for average, value in zip(found, taken, strict=True):
            average.update(value)
        images += len(batch.images)
    if not images:
        raise AnalysisInputError("fit_batches", "there are no images to take the means from")
    return [average.compute() for average in found], images, [average.left_out for average in found]


def _swaps(
    maps: ReplaceableMaps, fit: LabelledBatches, wanted: bool | None, seed: int
) -> tuple[list[Condition], list[str]]:
    """The layer swaps that are to run, and why others are not."""
    stages = {layer.stage for layer in maps.layers}
    several = [s for s in sorted(stages) if sum(layer.stage == s for layer in maps.layers) > 1]
    if wanted is False or not several:
        return [], []
    images = next(iter(fit)).images.to(maps.device)
    aligned = aligned_layers(maps.model, images, [(layer.name, layer.call) for layer in maps.layers])
    found = swap_conditions(maps.layers, aligned, seed)
    known = {condition.target.stage for condition in found}
    notes = [f"Stage {s}: layer swap is undefined: {NO_COMMON_MEANING}." for s in several if s not in known]
    if wanted is None and passes_of(found) > MOST_PASSES:
        return [], [*notes, f"The layer swap was not run: it takes {passes_of(found)} passes; ask for it (swap)."]
    return found, notes


@dataclass
class _Run:
    """The images going through the network, first untouched, then with every replacement."""

    maps: ReplaceableMaps
    averages: list[Average]
    targets: list[Condition]
    swaps: list[Condition]
    donors: Donors
    recalibration: Recalibration | None
    seed: int
    patients: ImagePatients | None = None
    every_other: bool = False
    untouched: Answers = field(default_factory=Answers)
    labels: list[Tensor] = field(default_factory=list)
    whose: Patients | None = None
    classes: int = 0
    seconds: float = 0.0

    @property
    def conditions(self) -> list[Condition]:
        """All in which the network runs."""
        return [*self.targets, *self.swaps]

    @property
    def passes(self) -> int:
        """How often all images go through the network, from now on; recalibration counts as passes too."""
        again = 0 if self.recalibration is None else len(self.conditions)
        return 1 + again + sum(condition.draws for condition in self.conditions)

    def look(self, batches: LabelledBatches) -> None:
        """The images once through the untouched network, whose maps are held for other images."""
        started, images = perf_counter(), 0
        for batch in batches:
            self.donors.add(self.maps.untouched(batch.images)[1])
            images += len(batch.images)
        if images < 2:
            raise AnalysisInputError("data", f"{images} image given; an ablation compares images: give at least 2")
        self.donors.draw()
        self.seconds = (perf_counter() - started) * self.passes

    def run(self, batches: LabelledBatches) -> None:
        """The images through the network with its own maps, and with all others."""
        statistics = self._recalibrated()
        first = 0
        for batch in batches:
            outputs, own = self.maps.untouched(batch.images)
            self.classes = outputs.shape[1]
            self.untouched.add(outputs, batch.labels, outputs)
            self.labels.append(batch.labels)
            donors = self.donors.of(first, own)
            for number, condition in enumerate(self.conditions):
                with statistics(number):
                    for draw, (answers, other) in enumerate(zip(condition.answers, donors, strict=False)):
                        new = condition.new_maps(self.averages, own, other, draw)
                        condition.note_change(new, own)
                        answers.add(self.maps.replaced(batch.images, new), batch.labels, outputs)
            first += len(batch.images)

    def _recalibrated(self) -> "Callable[[int], AbstractContextManager[None]]":
        if self.recalibration is None:
            return _as_they_are
        return self.recalibration.of(self.averages, self.conditions, self.seed)

    def notes(self) -> list[str]:
        """What a reader must know of how it was measured."""
        answers = torch.cat(self.untouched.predicted)
        gone = int((answers == NOTHING).sum())
        return [
            *([f"{quantity(gone, 'image')} left out: the untouched network's answer is not finite."] if gone else []),
            *(
                ["Donors were drawn within batches: the maps of all images are too large to hold."]
                if self.donors.within_batches and any(c.draws > 1 for c in self.conditions)
                else []
            ),
        ]

    def result(self, name: str, fit_images: int, notes: list[str]) -> NetworkAblation:
        """The numbers."""
        chosen = torch.cat(self.untouched.predicted).numpy() != NOTHING
        if not chosen.any():
            raise AnalysisInputError("model", "its answers are not finite (NaN or infinite) on any image")
        labels = torch.cat(self.labels).numpy()[chosen]
        untouched = self.untouched.of(chosen)
        self.whose = self._whose(chosen)
        itself = score([untouched], untouched, labels, self.whose)
        return NetworkAblation(
            name=name,
            num_images=int(chosen.sum()),
            fit_images=fit_images,
            num_classes=self.classes,
            accuracy=itself.accuracy,
            loss=itself.loss,
            most_frequent=_most_frequent(labels),
            layers=self.maps.layers,
            ablations=tuple(self._ablation(each, chosen, untouched, labels) for each in self.targets),
            swaps=tuple(self._ablation(each, chosen, untouched, labels) for each in self.swaps),
            recalibrated=self.recalibration is not None,
            notes=tuple(notes),
        )

    def _whose(self, chosen: np.ndarray) -> Patients | None:
        """The patients of the chosen images; of every other image where the others gave the means."""
        if self.patients is None:
            return None
        names = list(self.patients() if callable(self.patients) else self.patients)
        names = names[1::2] if self.every_other else names
        if len(names) != len(chosen):
            raise AnalysisInputError(
                "patients", f"{len(names)} names for {len(chosen)} images; give one for each image, in order"
            )
        return Patients.named(names).of(chosen)

    def _ablation(self, one: Condition, chosen: np.ndarray, untouched: AnswersByImage, labels: np.ndarray) -> Ablation:
        answers = [each.of(chosen) for each in one.answers]
        return Ablation(
            stage=one.target.stage,
            layers=one.target.layers,
            replaced_by=one.replaced_by,
            effect=one.target.effect,
            scores=score(answers, untouched, labels, self.whose),
            map_change=one.map_change,
            draws=one.draws,
            seed=self.seed,
            by_layer=one.by_layer,
            swap_score=self._swap_score(one, answers[0], chosen, untouched, labels)
            if one.replaced_by == MATCHED
            else None,
        )

    def _swap_score(
        self,
        one: Condition,
        matched: AnswersByImage,
        chosen: np.ndarray,
        untouched: AnswersByImage,
        labels: np.ndarray,
    ) -> Estimate:
        floor = next(c for c in self.swaps if c.target == one.target and c.replaced_by == PERMUTED)
        permuted = np.mean([each.of(chosen).loss for each in floor.answers], axis=0)
        known = labels != UNKNOWN
        whose = self.whose and self.whose.of(known)
        return swap_score(permuted[known], matched.loss[known], untouched.loss[known], whose)


@contextmanager
def _as_they_are(_: int) -> Iterator[None]:
    yield


def _most_frequent(labels: np.ndarray) -> float | None:
    """The accuracy of always answering the most frequent class; None without labels."""
    known = labels[labels >= 0]
    return float(np.bincount(known).max() / len(known)) if len(known) else None


def _left_out(layers: Sequence[Layer], counts: Sequence[int]) -> list[str]:
    return [
        f"The mean of {layer.name} leaves out {quantity(count, 'image')} on which its map is not finite."
        for layer, count in zip(layers, counts, strict=True)
        if count
    ]
