"""One page with everything that the analyses find of some networks on some images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dia_analysis import AnalysisInputError, Provenance, Subject
from dia_analysis.cost.measure import count_parameters
from dia_analysis.networks import Known, Network
from dia_analysis.paper.gradient_pairs import BesidePlain
from dia_analysis.paper.measure_untrained import Untrained
from dia_analysis.probes.batches import inputs_of, iterate_batches, labels_of
from dia_analysis.results.provenance import versions
from figures.pages import measured
from figures.pages.measured import Again, Effort, Fit
from figures.pages.report_page import Facts, ReportPage, Section

EVERYTHING = Effort()


def report(
    models: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module],
    batches: Any,
    labels: Tensor | Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    data: str = "the given images",
    seed: int = 0,
) -> ReportPage:
    """Analyse classifiers on the same images: correlation, importance, gradients, heatmaps with checks, and cost.

    Args:
        models: a network, several, or several by name.
        batches: images (image, channel, height, width) as the networks expect them, batch by batch; all are kept.
        labels: the numbers of the images' classes; by default those that the batches bring, or none, and then there
            are no gradients.
        names: the networks' names, by default those of their classes.
        class_names: the names of the classes in the order of the outputs.
        data: what the page calls the images.
        seed: of everything that is drawn at random.

    Returns:
        The page: `.save("report.html")`, `.summary()`.

    Raises:
        AnalysisInputError: if there is no network or no image, or not a label for each image and a name for each
            network.
    """
    images = _Images.read(batches, labels, class_names, data, seed)
    networks = [_Network(name, model, images, class_names) for name, model in _named(models, names).items()]
    size = min(len(images), 32)
    subjects = {each.name: Subject(each.model, images.pixels[:size]) for each in networks}
    return measure_report(networks, subjects)


def measure_report(
    networks: Sequence[Network],
    subjects: Mapping[str, Subject],
    *,
    again: Again | None = None,
    gradients: Section[BesidePlain] | None = None,
    unreadable: Mapping[str, str] | None = None,
    fit: Fit = lambda network: None,
    effort: Effort = EVERYTHING,
) -> ReportPage:
    """The page of networks that know what they are and which images they see.

    `subjects` are the networks and their backbones without attention, to measure the cost of; `again` gives the
    command that does an analysis again, `fit` other images, with their classes, for the means of a network's ablation
    (None: every other one of its images). `gradients` stand on the page in place of those of these networks.
    """
    images, command = networks[0].images, again or (lambda *_: "")
    attending = measured.with_attention(networks)
    page = ReportPage(
        data=images.data,
        selection=images.selection,
        command=command("report", range(len(networks)), len(images)),
        subjects=[Facts(network.name, network.known.facts) for network in networks],
        correlation=measured.correlations(networks, attending, command),
        ablation=measured.ablations(networks, attending, command, effort, fit),
        gini=measured.importances(networks, attending, command, effort),
        gradients=gradients or measured.gradients(networks, command, effort),
        gradcam=measured.heatmaps(networks, command, effort),
        cost=measured.costs(networks, subjects, command, effort),
        unreadable=unreadable or {},
        versions=versions(),
        seed=images.seed,
    )
    return page if again else page.without_commands()


def _named(models: Any, names: Sequence[str] | None) -> dict[str, nn.Module]:
    several = [models] if isinstance(models, nn.Module) else models
    if isinstance(several, Mapping):
        several, names = list(several.values()), names or [str(name) for name in several]
    if not several:
        raise AnalysisInputError("models", "there is no network; give at least one")
    given = list(names) if names else _distinct([type(model).__name__ for model in several])
    if len(set(given)) != len(several):
        raise AnalysisInputError("names", f"{len(set(given))} names for {len(several)} networks; give one for each")
    return dict(zip(given, several, strict=True))


def _distinct(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names, 1)]


@dataclass(frozen=True)
class _Images:
    """Images in memory, with labels (-1: none); batches are of `size` images."""

    pixels: Tensor
    numbers: Tensor
    classes: Sequence[str] | None
    data: str
    seed: int
    size: int

    @classmethod
    def read(cls, batches: Any, labels: Any, classes: Sequence[str] | None, data: str, seed: int) -> "_Images":
        read = list(iterate_batches(batches))
        if not read:
            raise AnalysisInputError("batches", "there are no images to analyze")
        parts = [inputs_of(batch) for batch in read]
        pixels, own = torch.cat(parts), [labels_of(batch) for batch in read]
        if labels is not None:
            numbers = torch.as_tensor(labels)
        elif any(each is None for each in own):
            numbers = torch.full((len(pixels),), -1)
        else:
            numbers = torch.cat([each for each in own if each is not None])
        if numbers.shape != (len(pixels),):
            given = "x".join(map(str, numbers.shape))
            raise AnalysisInputError(
                "labels", f"labels of shape {given} for {len(pixels)} images; give one number each"
            )
        return cls(pixels, numbers.cpu(), classes, data, seed, len(parts[0]))

    @property
    def selection(self) -> str:
        return "all images given"

    def __len__(self) -> int:
        return len(self.pixels)

    def some(self, count: int) -> "_Images":
        return replace(self, pixels=self.pixels[:count], numbers=self.numbers[:count])

    first = some

    def of(self, names: Iterable[str]) -> "_Images":
        chosen = [self.paths().index(name) for name in names]
        return replace(self, pixels=self.pixels[chosen], numbers=self.numbers[chosen])

    def paths(self) -> list[str]:
        return [f"#{i}" for i in range(len(self))]

    def labels(self) -> list[str | None]:
        found = self.numbers.tolist()
        return [None if n < 0 else self.classes[n] if self.classes else str(n) for n in found]


@dataclass(frozen=True)
class _Network:
    """A network of which no more is known than what it computes."""

    name: str
    model: nn.Module
    images: _Images
    classes: Sequence[str] | None

    @property
    def known(self) -> Known:
        facts = {
            "network": type(self.model).__name__,
            "parameters": f"{count_parameters(self.model):,}",
            "input": "x".join(map(str, self.images.pixels.shape[1:])),
        }
        shapes = tuple((name, tuple(tensor.shape)) for name, tensor in self.model.state_dict().items())
        return Known(facts, (type(self.model), shapes))

    def provenance(self) -> Provenance:
        return Provenance(data=self.images.data, selection=self.images.selection, seed=self.images.seed)

    def of(self, images: _Images) -> "_Network":
        return replace(self, images=images)

    def batches(self, label: str) -> Iterable[Tensor]:
        return torch.split(self.images.pixels, self.images.size)

    def pictures(self, size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
        """Each image's values from its lowest, black, to its highest, white; of three channels the colors."""
        for part in torch.split(self.images.pixels.float().cpu(), count):
            low, high = part.amin((1, 2, 3), keepdim=True), part.amax((1, 2, 3), keepdim=True)
            shown = (part - low) / (high - low).clamp(min=1e-12)
            shown = shown if shown.shape[1] == 3 else shown.mean(1, keepdim=True).expand(-1, 3, -1, -1)
            scaled = F.interpolate(shown, size, mode="bilinear")
            yield (255 * scaled).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    def answered(self, label: str) -> Iterable[tuple[Tensor, Tensor]]:
        return zip(self.batches(label), torch.split(self.images.numbers, self.images.size), strict=True)

    def labelled(self, label: str) -> Iterable[tuple[Tensor, Tensor]]:
        if (self.images.numbers < 0).any():
            raise AnalysisInputError("labels", "the images have no labels")
        return self.answered(label)

    def before_training(self) -> Untrained | None:
        return None
