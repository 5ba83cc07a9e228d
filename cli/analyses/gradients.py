"""dia-analyze gradients: measure networks side by side or along training, draw, compare with the paper."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import figures
from cli.analyses.gradient_pairs import dia_lstm_beside_plain
from cli.common.images import SelectedImages
from cli.common.networks import Candidate
from cli.common.publish import Found, Out
from dia_analysis import GradientResult, NetworkGradients, network_gradients
from dia_analysis.paper.gradient_pairs import PAPER, Pair
from dia_analysis.probes.modes import Mode
from dia_analysis.results.output import write_json
from dia_analysis.results.words import quantity
from dia_models import Checkpoint
from dia_models.data import Preprocessing
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
    *,
    as_json: bool,
) -> None:
    """Measure, print the table or the JSON document, and write everything."""
    with out.folder("gradients", list(dict.fromkeys(c.name for c in candidates)), images.data) as taken:
        result = measure(candidates, images)
        images.report_unreadable()
        found(result, images).publish(taken, as_json=as_json)


def found(result: GradientResult, images: SelectedImages) -> Found:
    """What to print and to write."""
    pairs = dia_lstm_beside_plain(result)
    document = {**result.to_dict(), "dia_lstm_beside_plain": [pair.to_dict() for pair in pairs]}
    about = {"networks": [network.provenance.to_dict() for network in result.networks]}

    def write(folder: Path) -> None:
        write_json(folder / "gradients.json", document)
        result.write_arrays(folder)
        (folder / "images.txt").write_text("\n".join(images.names()) + "\n", encoding="utf-8")
        draw(result, folder)

    return Found(about, document, text(result, images, pairs), write)


def draw(result: GradientResult, folder: Path) -> None:
    """Write the figures that these results have, as PNG and PDF."""
    along_training = any(network.epoch is not None for network in result.networks)
    if along_training:
        figures.save_figure(figures.gradients_along_training(result), folder / "fig13-training")
    if not along_training or len(result.over_seeds) <= len(figures.COLOURS):
        figures.save_figure(figures.gradient_distributions(result), folder / "fig13-distribution")
    if any(network.blocks for network in result.networks):
        figures.save_figure(figures.gradients_along_depth(result), folder / "fig13-blocks")


def text(result: GradientResult, images: SelectedImages, pairs: list[Pair]) -> str:
    """What was measured, the table, the findings, and what the paper says."""
    head = f"{images.data}, {quantity(result.networks[0].num_images, 'image')}"
    return "\n".join([head, result.summary(), *(["", PAPER, *(pair.line() for pair in pairs)] if pairs else [])])
