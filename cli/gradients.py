"""dia-analyze gradients: measure networks side by side or along training, draw, compare with the paper."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from random import Random

import torch
from torch import Tensor

import figures
from cli.classes import class_numbers
from cli.console import note, say, say_json, tracked
from cli.networks import Candidate, in_even_batches
from dia_analysis import GradientResult, NetworkGradients, Provenance, network_gradients
from dia_analysis.output import check_free, new_directory, write_json
from dia_models import Checkpoint, ModelInputError, ModelSpec
from dia_models.allocator import keep_freed_memory
from dia_models.data import FileImages, ImageSource, MemoryImages, Preprocessing, evenly_spaced, open_data, suited
from dia_models.device import choose_device
from dia_models.models import without_attention

DEFAULT_IMAGES = 512


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
            checkpoint=checkpoint and checkpoint.name,
            checkpoint_sha256=checkpoint and checkpoint.sha256,
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
    source = open_data(data, "any", data_dir, workers=workers, strict=strict)
    if images is not None and images > len(source):
        raise ModelInputError("images", f"{images} images asked for, {data} has {len(source)}; give at most that many")
    if not source.classes:
        class_numbers(source, (), data)
    chosen = evenly_spaced(images or min(DEFAULT_IMAGES, len(source)), len(source))
    Random(seed).shuffle(chosen)  # so that every batch has all classes
    where = choose_device(device)
    if where.type == "cpu":
        keep_freed_memory()
    fresh = first.info.preprocessing if first else _measured(data, source, chosen, image_size)
    return LabelledImages(data, source, chosen, in_even_batches(len(chosen), batch_size), where, seed, fresh)


def measure(
    candidates: list[Candidate], images: LabelledImages, points: list[str] | None, *, per_block: bool
) -> GradientResult:
    """The gradients of every candidate on the same images."""
    return GradientResult(tuple(_measure_one(candidate, images, points, per_block) for candidate in candidates))


def _measure_one(
    candidate: Candidate, images: LabelledImages, points: list[str] | None, per_block: bool
) -> NetworkGradients:
    checkpoint = candidate.read()
    if checkpoint is None:
        classes, preprocessing, epoch = images.source.classes, images.fresh, None
        model = candidate.fresh(len(classes), len(preprocessing.mean), images.seed)
    else:
        classes, preprocessing, epoch = checkpoint.info.classes, checkpoint.info.preprocessing, checkpoint.info.epoch
        model = checkpoint.build()
    model.to(images.device).to(memory_format=torch.channels_last)
    label = candidate.name if epoch is None else f"{candidate.name}, epoch {epoch}"
    return network_gradients(
        model,
        images.batches(preprocessing, classes, label),
        name=candidate.name,
        points=points,
        per_block=per_block,
        seed=images.seed,
        epoch=epoch,
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
    points: list[str] | None,
    out: Path,
    *,
    per_block: bool,
    overwrite: bool,
    as_json: bool,
) -> GradientResult:
    """Measure, write everything into `out`, and print the table or the JSON document."""
    check_free(out, overwrite)
    result = measure(candidates, images, points, per_block=per_block)
    images.report_unreadable()
    claim = papers_claim(result)
    document = {**result.to_dict(), "paper": claim}
    about = {"networks": [network.provenance.to_dict() for network in result.networks]}
    with new_directory(out, about, overwrite=overwrite) as folder:
        write_json(folder / "gradients.json", document)
        result.write_arrays(folder)
        (folder / "images.txt").write_text("\n".join(map(images.source.name, images.chosen)) + "\n", encoding="utf-8")
        draw(result, folder)
    if as_json:
        say_json(document)
    else:
        say(text(result, images, claim))
    note(f"written to {out}/")
    return result


def draw(result: GradientResult, folder: Path) -> None:
    """Write the figures that these results have, as PNG and PDF."""
    along_training = any(network.epoch is not None for network in result.networks)
    if along_training:
        figures.save_figure(figures.gradients_along_training(result), folder / "fig13-training")
    if not along_training or len(result.networks) <= len(figures.COLOURS):
        figures.save_figure(figures.gradient_distributions(result), folder / "fig13-distribution")
    if any(network.blocks for network in result.networks):
        figures.save_figure(figures.gradients_along_depth(result), folder / "fig13-blocks")


def text(result: GradientResult, images: LabelledImages, claim: list[str]) -> str:
    """What was measured, the table, the findings, and what the paper says."""
    first = result.networks[0]
    head = (
        f"{first.images} images of {images.data} in batches of {first.batch_size}: absolute gradient g of the loss at "
        "each stage's output, in training mode"
    )
    return "\n".join([head, "", result.summary(), *(["", *claim] if claim else [])])


def papers_claim(result: GradientResult) -> list[str]:
    """Whether mean and variance are larger with DIA-LSTM than in the plain network at each stage, as in Fig. 13.

    One sentence for each network with DIA-LSTM whose plain backbone was measured too, at the same epoch.
    """
    plain = {(_key(network), network.epoch): network for network in result.networks}
    sentences = []
    for network in result.networks:
        spec = ModelSpec.model_validate(network.made_from)
        other = plain.get((without_attention(spec).model_dump_json(), network.epoch))
        if spec.name.rpartition("_dia_")[2].startswith("lstm") and other is not None:
            sentences.append(_compared(network, other))
    return sentences


def _key(network: NetworkGradients) -> str:
    return ModelSpec.model_validate(network.made_from).model_dump_json()


def _compared(network: NetworkGradients, plain: NetworkGradients) -> str:
    pairs = [(a.magnitudes, b.magnitudes) for a, b in zip(network.stages, plain.stages, strict=True)]
    means = [a.mean / b.mean if a.mean is not None and b.mean else nan for a, b in pairs]
    variances = [a.variance / b.variance if a.variance is not None and b.variance else nan for a, b in pairs]
    holds = "holds" if all(ratio > 1 for ratio in (*means, *variances)) else "does not hold"
    skip = "without" if network.made_from["options"].get("skip") is False else "with"
    return (
        f"{network.label}, {skip} skip connections: mean |g| is {_times(means)} times that of {plain.name} at stages "
        f"1 to {len(means)}, its variance {_times(variances)} times. The paper's finding that DIA-LSTM increases both "
        f"(Fig. 13, ResNet56 without skip connections): {holds} here."
    )


def _times(ratios: list[float]) -> str:
    return ", ".join("–" if isnan(ratio) else f"{ratio:.3g}" for ratio in ratios)
