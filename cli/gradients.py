"""dia-analyze gradients: measure networks side by side or along training, draw, compare with the paper."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor

import figures
from cli.classes import class_numbers
from cli.console import note, tracked
from cli.gradient_pairs import PAPER, Pair, dia_lstm_beside_plain
from cli.inputs import Inputs
from cli.networks import Candidate, in_even_batches
from cli.publishing import Found, Out
from dia_analysis import GradientResult, NetworkGradients, Provenance, network_gradients
from dia_analysis.output import write_json
from dia_analysis.probes.modes import Mode
from dia_models import Checkpoint, ModelInputError
from dia_models.allocator import keep_freed_memory
from dia_models.data import FileImages, ImageSource, MemoryImages, Preprocessing, evenly_spaced, open_data, suited
from dia_models.device import choose_device
from dia_models.network import Network

DEFAULT_IMAGES = 512
DRAWS = 5  # of random weights: fewer than three have no interval


@dataclass(frozen=True)
class LabelledImages:
    """Chosen images of a data set with labels; `fresh` says how networks with random weights see them."""

    data: str
    source: ImageSource
    chosen: list[int]
    batch_size: int
    device: torch.device
    seed: int
    fresh: Preprocessing

    def batches(
        self, preprocessing: Preprocessing, classes: tuple[str, ...], label: str
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as a network expects them and the numbers of their classes, batch by batch, with a progress bar."""
        numbers = class_numbers(self.source, classes, self.data)
        channels = len(preprocessing.mean)
        batches = self.source.batches(self.chosen, self.batch_size, preprocessing.size, channels)
        for batch in tracked(batches, -(-len(self.chosen) // self.batch_size), label):
            yield preprocessing(batch.pixels.to(self.device)), numbers[batch.labels]

    def provenance(self, checkpoint: Checkpoint | None) -> Provenance:
        """Where the gradients of a network come from."""
        return Provenance(
            checkpoint=None if checkpoint is None else checkpoint.name,
            checkpoint_sha256=None if checkpoint is None else checkpoint.sha256,
            data=self.data,
            selection=f"{len(self.chosen)} of {len(self.source)} images at equal distances, in random order",
            seed=self.seed,
        )

    def report_unreadable(self) -> None:
        """Name the files that were skipped."""
        if isinstance(self.source, FileImages):
            for name, reason in sorted(self.source.unreadable.items()):
                note(f"warning: skipped {name}: {reason}")


def open_labelled(
    data: str | None,
    first: Checkpoint | None,
    images: int | None,
    *,
    data_dir: Path | None,
    download: bool = False,
    image_size: int | None,
    device: str,
    batch_size: int,
    workers: int,
    strict: bool,
    seed: int,
) -> LabelledImages:
    """Open the images: by default those that the first checkpoint was tested on, or digits.

    `image_size` is for networks with random weights, which otherwise see the images as the first checkpoint does, or
    in the size they have.
    """
    data = data or (first.info.data if first else "digits")
    source = open_data(data, "any", data_dir, workers=workers, strict=strict, download=download)
    if images is not None and images > len(source):
        raise ModelInputError("images", f"{images} images asked for, {data} has {len(source)}; give at most that many")
    if not source.classes:
        class_numbers(source, (), data)
    chosen = _chosen(source, images or min(DEFAULT_IMAGES, len(source)), seed)
    fresh = first.info.preprocessing if first else _measured(data, source, chosen, image_size)
    where = choose_device(device)
    if where.type == "cpu":
        keep_freed_memory()
    return LabelledImages(data, source, chosen, in_even_batches(len(chosen), batch_size), where, seed, fresh)


def labelled(inputs: Inputs, images: int, batch_size: int) -> LabelledImages:
    """So many of the images that are open for a checkpoint."""
    chosen, fresh = _chosen(inputs.source, images, inputs.seed), inputs.checkpoint.info.preprocessing
    size = in_even_batches(images, batch_size)
    return LabelledImages(inputs.data, inputs.source, chosen, size, inputs.device, inputs.seed, fresh)


def _chosen(source: ImageSource, images: int, seed: int) -> list[int]:
    chosen = evenly_spaced(images, len(source))
    Random(seed).shuffle(chosen)  # so that every batch has all classes
    return chosen


@dataclass(frozen=True)
class Measurement:
    """What is measured: at which modules, in which mode, and with random weights from how many seeds."""

    points: list[str] | None = None
    per_block: bool = False
    mode: Mode = "training"
    draws: int = DRAWS

    def __call__(self, candidates: list[Candidate], images: LabelledImages) -> GradientResult:
        """The gradients of every candidate on the same images."""
        networks = (network for candidate in candidates for network in self._of(candidate, images))
        return GradientResult(tuple(networks))

    def _of(self, candidate: Candidate, images: LabelledImages) -> Iterator[NetworkGradients]:
        """Those of a checkpoint, or of a network with weights from one seed after the other."""
        checkpoint = candidate.read()
        if checkpoint is not None:
            yield self._measure(candidate.name, checkpoint.build(), checkpoint, images, checkpoint.info.seed)
            return
        for seed in range(images.seed, images.seed + self.draws):
            model = candidate.fresh(len(images.source.classes), len(images.fresh.mean), seed)
            yield self._measure(candidate.name, model, None, images, seed)

    def _measure(
        self, name: str, model: Network, checkpoint: Checkpoint | None, images: LabelledImages, weights_seed: int
    ) -> NetworkGradients:
        info = None if checkpoint is None else checkpoint.info
        classes = images.source.classes if info is None else info.classes
        preprocessing = images.fresh if info is None else info.preprocessing
        epoch = None if info is None else info.epoch
        seed = weights_seed if info is None else images.seed
        about = f"seed {seed}" if info is None and self.draws > 1 else f"epoch {epoch}" if epoch is not None else ""
        model.to(images.device).to(memory_format=torch.channels_last)
        return network_gradients(
            model,
            images.batches(preprocessing, classes, ", ".join(filter(None, (name, about)))),
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


def _measured(data: str, source: ImageSource, chosen: list[int], size: int | None) -> Preprocessing:
    """What suits the chosen images; a data set in files is read once for it."""
    if isinstance(source, MemoryImages):
        return suited(data, source.pixels[chosen])
    return suited(data, source.take(chosen).load(None if size is None else (size, size), 3).pixels)


def report(
    candidates: list[Candidate],
    images: LabelledImages,
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


def found(result: GradientResult, images: LabelledImages) -> Found:
    """What to print and to write."""
    pairs = dia_lstm_beside_plain(result)
    document = {**result.to_dict(), "dia_lstm_beside_plain": [pair.to_dict() for pair in pairs]}
    about = {"networks": [network.provenance.to_dict() for network in result.networks]}

    def write(folder: Path) -> None:
        write_json(folder / "gradients.json", document)
        result.write_arrays(folder)
        (folder / "images.txt").write_text("\n".join(map(images.source.name, images.chosen)) + "\n", encoding="utf-8")
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


def text(result: GradientResult, images: LabelledImages, pairs: list[Pair]) -> str:
    """What was measured, the table, the findings, and what the paper says."""
    head = f"{images.data}, {result.networks[0].images} images"
    return "\n".join([head, result.summary(), *(["", PAPER, *(pair.line() for pair in pairs)] if pairs else [])])
