"""Measure the correlation of a network's layers beside that of the same network before training."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dia_analysis.correlation.controls import with_controls
from dia_analysis.correlation.held import Patients
from dia_analysis.correlation.measure import measure_correlation
from dia_analysis.correlation.results import CorrelationResult
from dia_analysis.correlation.similarity_names import READINGS
from dia_analysis.distributed import all_gather
from dia_analysis.errors import AnalysisInputError
from dia_analysis.explain.targets import as_logits
from dia_analysis.paper.untrained import Baseline, BesideUntrained, Training
from dia_analysis.probes.graph import is_watched
from dia_analysis.results.provenance import Provenance

Labelled = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Untrained:
    """A network before its training, with the batch norms' statistics of that moment.

    `weights` says in words which it has, `exact` that they are those with which the training began; `reestimate` gives
    batch norms the statistics of some images and says of how many, 0 without batch norms.
    """

    model: nn.Module
    weights: str
    exact: bool
    reestimate: Callable[[nn.Module], int]


def measure_beside_untrained(
    model: nn.Module,
    batches: Callable[[str], Iterable[Labelled]],
    untrained: Untrained | None = None,
    *,
    recorded: bool = False,
    points: Sequence[str] | None = None,
    similarity: Sequence[str] = (),
    readings: bool = False,
    by_index: bool = False,
    patients: Patients | None = None,
    seed: int = 0,
    provenance: Provenance | None = None,
) -> BesideUntrained:
    """Correlate the layers of a classifier, and of the same network before training, on the same images.

    Args:
        model: the network.
        batches: gives the images, batch by batch, with the numbers of their classes (-1: none that the network
            knows), each time that it is called; its argument says what for.
        untrained: the network before training.
        recorded: whether a checkpoint records the network's training, or its weights were loaded from a file.
        points: modules to capture, as `measure_correlation` takes them; so are `similarity`, `by_index`, `patients` and
            `seed`.
        similarity: what to measure besides r and CKA.
        readings: whether Fig. 2 is read in several ways, which takes two more passes of each network.
        by_index: whether heads are compared by their numbers.
        patients: whose each image is.
        seed: of what is drawn at random.
        provenance: where the network and the images come from.
    """
    tally = Tally(recorded)
    others = dict.fromkeys([*similarity, *(READINGS if readings else ())])
    how: Any = {"similarity": list(others), "by_index": by_index, "patients": patients, "seed": seed}
    how |= {"provenance": provenance}

    def correlate(
        network: nn.Module, shown: Iterable[Tensor], like: CorrelationResult | None = None
    ) -> CorrelationResult:
        found = measure_correlation(network, shown, points=points, like=like, **how)
        return with_controls(found, network, shown, seed=seed) if readings else found

    with tally.watching(model):
        trained = correlate(model, Again(lambda: tally.images_of(batches("trained"))))
    if untrained is None:
        return BesideUntrained(trained, training=tally.training())

    def baseline(label: str, statistics: str) -> Baseline:
        found = correlate(untrained.model, Again(lambda: (images for images, _ in batches(label))), trained)
        return Baseline(found, untrained.weights, statistics, untrained.exact)

    before = baseline("before training", "as saved")
    if images := untrained.reestimate(untrained.model):
        again = baseline("re-estimated", f"re-estimated on {images} of the measured images")
        return BesideUntrained(trained, before, again, tally.training())
    return BesideUntrained(trained, replace(before, statistics=None), None, tally.training())


@dataclass(frozen=True)
class Again:
    """Batches that can be asked for again, from a function that gives them."""

    give: Callable[[], Iterable[Tensor]]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.give())


class Tally:
    """Counts the right answers of a network while an analysis runs it; images of unknown classes do not count."""

    def __init__(self, recorded: bool):
        self.recorded = recorded
        self.shown = False
        self.labels = torch.empty(0)
        self.right = self.images = self.classes = 0

    def images_of(self, batches: Iterable[Labelled]) -> Iterator[Tensor]:
        """The images, for a network that is watched meanwhile; those that are shown again do not count."""
        again, self.shown = self.shown, True
        for images, labels in batches:
            self.labels = labels[:0] if again else labels
            yield images

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Count what the network answers inside the block."""
        handle = model.register_forward_hook(self._count)
        try:
            yield
        finally:
            handle.remove()

    def training(self) -> Training:
        """What shows that the network was trained: its record, and these answers, of all processes together."""
        right, images = (sum(all_gather(count)) for count in (self.right, self.images))
        return Training(self.recorded, right, images, max(all_gather(self.classes)))

    def _count(self, _: nn.Module, __: Any, output: Any) -> None:
        if is_watched() or not len(self.labels):  # the pass that finds the attention, or images that are shown again
            return
        try:
            logits = as_logits(output).cpu()
        except AnalysisInputError:  # no class scores: it has no accuracy
            return
        scores = torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
        known, self.classes = self.labels >= 0, scores.shape[1]
        wanted, scores = self.labels[known], scores[known]
        right = (scores.argmax(1) == wanted) & scores.isfinite().all(1)  # of a network that diverged, none is
        self.right += int(right.sum())
        self.images += len(wanted)
