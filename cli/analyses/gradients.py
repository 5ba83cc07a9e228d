"""dia-analyze gradients: measure networks side by side or along training, draw, compare with the paper."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure

import figures
from cli.common.images import SelectedImages
from cli.common.networks import Candidate
from cli.common.publish import Found, Out
from dia_analysis import GradientResult, NetworkGradients, network_gradients
from dia_analysis.paper.gradient_pairs import BesidePlain, pair_with_plain
from dia_analysis.probes.modes import Mode
from dia_models import Checkpoint, ModelSpec
from dia_models.data import Preprocessing
from dia_models.factory import without_attention
from dia_models.spec import Network

DRAWS = 5  # of random weights: fewer than three have no interval


@dataclass(frozen=True)
class Measurement:
    """What is measured: at which modules, in which mode, and with random weights from how many seeds.

    `fresh` says how networks with random weights see the images.
    """

    points: list[str] | None = None
    per_block: bool = False
    mode: Mode = "training"
    draws: int = DRAWS
    fresh: Preprocessing | None = None

    def __call__(self, candidates: list[Candidate], images: SelectedImages) -> GradientResult:
        """The gradients of every candidate on the same images."""
        networks = (network for candidate in candidates for network in self._of(candidate, images))
        return GradientResult(tuple(networks))

    @property
    def _fresh(self) -> Preprocessing:
        assert self.fresh is not None
        return self.fresh

    def _of(self, candidate: Candidate, images: SelectedImages) -> Iterator[NetworkGradients]:
        """Those of a checkpoint, or of a network with weights from one seed after the other."""
        checkpoint = candidate.read()
        if checkpoint is not None:
            yield self._measure(candidate.name, checkpoint.build(), checkpoint, images, checkpoint.info.seed)
            return
        for seed in range(images.seed, images.seed + self.draws):
            model = candidate.fresh(len(images.source.classes), len(self._fresh.mean), seed)
            yield self._measure(candidate.name, model, None, images, seed)

    def _measure(
        self, name: str, model: Network, checkpoint: Checkpoint | None, images: SelectedImages, weights_seed: int
    ) -> NetworkGradients:
        info = None if checkpoint is None else checkpoint.info
        classes = images.source.classes if info is None else info.classes
        preprocessing = self._fresh if info is None else info.preprocessing
        epoch = None if info is None else info.epoch
        seed = weights_seed if info is None else images.seed
        about = f"seed {seed}" if info is None and self.draws > 1 else f"epoch {epoch}" if epoch is not None else ""
        model.to(images.device).to(memory_format=torch.channels_last)
        return network_gradients(
            model,
            images.labelled(preprocessing, classes, ", ".join(filter(None, (name, about)))),
            name=name,
            points=self.points,
            per_block=self.per_block,
            mode=self.mode,
            seed=seed,
            epoch=epoch,
            weights_seed=weights_seed,
            made_from=model.spec.model_dump(mode="json"),
            provenance=images.provenance(checkpoint),
        )


def report(
    candidates: list[Candidate],
    images: SelectedImages,
    measure: Measurement,
    out: Out,
) -> None:
    """Measure, print the table or the JSON document, and write everything."""
    with out.folder("gradients", list(dict.fromkeys(c.name for c in candidates)), images.data) as taken:
        result = measure(candidates, images)
        images.report_unreadable()
        out.publish(found(result, images), taken)


def beside_plain(result: GradientResult) -> BesidePlain:
    """The result, with the networks with DIA-LSTM beside their plain backbones."""
    return BesidePlain(result, tuple(pair_with_plain(result, _plain)))


def _plain(made_from: Mapping[str, Any]) -> dict[str, Any] | None:
    spec = ModelSpec.model_validate(made_from)
    return without_attention(spec).model_dump(mode="json") if "_dia_lstm" in spec.name else None


def found(result: GradientResult, images: SelectedImages) -> Found:
    """What to print and to write."""
    return Found.of(beside_plain(result), lambda: draw(result), images.names)


def draw(result: GradientResult) -> dict[str, Figure]:
    """The paper's figures, those that these results have."""
    drawn = {}
    if any(network.epoch is not None for network in result.networks):
        drawn["fig13-training"] = figures.gradients_along_training(result)
    if result.panels():
        drawn["fig13-distribution"] = figures.gradient_distributions(result)
    if any(network.blocks for network in result.networks):
        drawn["fig13-blocks"] = figures.gradients_along_depth(result)
    return drawn
