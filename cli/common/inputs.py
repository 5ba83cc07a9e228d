"""From a command's options to networks and the images they are to see."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from cli.common.grey import warn_of_colour
from cli.common.images import ANALYSED, SelectedImages, select_images
from cli.common.naming import read_named
from cli.common.options import DataOptions
from dia_analysis import AnalysisInputError, Provenance
from dia_analysis.probes.points import has_attention
from dia_analysis.results.words import quantity
from dia_models import Checkpoint, CheckpointInfo, ModelInputError, Network
from dia_models.checkpoints.untrained import has_statistics, untrained_network
from dia_models.data import Preprocessing, evenly_spaced
from dia_models.factory import blueprint, require_classifier, without_attention
from dia_models.training.machine import in_words

if TYPE_CHECKING:
    from dia_analysis.networks import Known
    from dia_analysis.paper.findings import Attention
    from dia_analysis.paper.measure_untrained import Untrained

STATISTICS_IMAGES = 1024


@dataclass(frozen=True)
class Inputs:
    """A network on a device, and the images that it is to see, prepared as it expects them.

    `checkpoint` is where it was read from, None for one with random weights, which were made from `weights_seed`.
    """

    name: str
    model: Network
    images: SelectedImages
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    checkpoint: Checkpoint | None = None
    weights_seed: int = 0

    @property
    def architecture(self) -> Hashable:
        """What runs of one network have in common: all but the seed."""
        return self.model.spec.model_dump_json(), self.classes

    @property
    def info(self) -> CheckpointInfo | None:
        """What the checkpoint says of itself."""
        return None if self.checkpoint is None else self.checkpoint.info

    @property
    def recorded(self) -> bool:
        """Whether the checkpoint records a training, and is not of a run's beginning."""
        return self.info is not None and "epochs" in self.info.recipe and self.info.epoch != 0

    @property
    def known(self) -> "Known":
        """What is known of the network."""
        from dia_analysis.networks import Known  # late: it loads the analyses

        spec, info = self.model.spec, self.info
        plain = without_attention(spec).model_dump(mode="json") if "_dia_lstm" in spec.name else None
        return Known(
            facts=facts(self.checkpoint, self.model, attention_of(self.model)) if self.checkpoint else {},
            architecture=self.architecture,
            attention=attention_of(self.model),
            recorded=self.recorded,
            known_trained=info is not None and bool(info.recipe) and info.epoch != 0,
            made_from=spec.model_dump(mode="json"),
            plain_from=plain,
            weights_seed=self.weights_seed if info is None else info.seed,
            epoch=None if info is None else info.epoch,
        )

    def of(self, images: SelectedImages) -> Self:
        """The network with other images."""
        return replace(self, images=images)

    def on(self, chosen: list[int]) -> Self:
        """The network with other images of the same data."""
        return self.of(replace(self.images, chosen=chosen))

    def batches(self, label: str) -> Iterator[Tensor]:
        """The images, batch by batch: (batch, channel, height, width), normalised, with a progress bar.

        Of several processes, each gets its share.
        """
        return (pixels for pixels, _ in self.images.shown(self.preprocessing, label))

    def labelled(self, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the numbers of their classes. Raises ModelInputError for classes that it does not know."""
        return self.images.labelled(self.preprocessing, self.classes, label)

    def answered(self, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same, with -1 for images of unknown classes."""
        try:
            return self.labelled(label)
        except ModelInputError:
            return ((pixels, torch.full((len(pixels),), -1)) for pixels in self.batches(label))

    def located(self, rows: list[int], label: str) -> Iterator[tuple[Tensor, list[int]]]:
        """The images at these positions among the chosen ones, batch by batch, with the positions of those read."""
        indices = [self.images.chosen[row] for row in rows]
        position = {self.images.source.name(index): row for index, row in zip(indices, rows, strict=True)}
        for pixels, batch in self.images.shown(self.preprocessing, label, indices):
            yield pixels, [position[name] for name in batch.names]

    def before_training(self) -> "Untrained":
        """The network before its training, batch-norm statistics as they were then, and where its weights come from."""
        from dia_analysis.paper.measure_untrained import Untrained  # late: it loads what measures

        assert self.checkpoint is not None
        found = untrained_network(self.checkpoint)
        found.model.to(self.images.device).to(memory_format=torch.channels_last)
        return Untrained(found.model, found.weights, found.exact, self.reestimate)

    def reestimate(self, model: nn.Module) -> int:
        """Give a network's batch norms the statistics of up to 1,024 of the images; how many, 0 without batch norms."""
        if not has_statistics(model):
            return 0
        chosen = self.images.chosen
        some = evenly_spaced(min(STATISTICS_IMAGES, len(chosen)), len(chosen))
        preprocessing = self.preprocessing
        with torch.random.fork_rng():
            torch.manual_seed(self.images.seed)  # of dropout
            shown = self.images.shown(preprocessing, "statistics", [chosen[i] for i in some])
            torch.optim.swa_utils.update_bn((pixels for pixels, _ in shown), model)
        model.eval()
        return len(some)

    def blamed(self, error: AnalysisInputError) -> AnalysisInputError:
        """An error of an analysis, naming the network."""
        return AnalysisInputError("ckpt" if error.argument == "model" else error.argument, f"{self.name}: {error}")

    def provenance(self) -> Provenance:
        """Where results from these inputs come from."""
        return self.images.provenance(self.checkpoint)


def open_networks(
    ckpts: Sequence[str], options: DataOptions, otherwise: int = ANALYSED, paths: Sequence[Path] = ()
) -> list[Inputs]:
    """Classifiers, under names that tell them apart, and the same images for all; as `select_images`."""
    checkpoints = read_classifiers(ckpts)
    images = select_images(options, checkpoints[0].info.data, otherwise, paths)
    warn_of_colour(checkpoints, images.source, images.chosen)
    return [make_inputs(checkpoint, images) for checkpoint in checkpoints]


def open_each(ckpts: Sequence[str], options: DataOptions) -> list[Inputs]:
    """The same, each checkpoint with images of its own data where the options name none."""
    return [make_inputs(c, select_images(options, c.info.data)) for c in read_classifiers(ckpts)]


def read_classifiers(ckpts: Sequence[str]) -> list[Checkpoint]:
    """Checkpoints of classifiers, under names that tell them apart. Raises ModelInputError for another network."""
    checkpoints = read_named(ckpts)
    for checkpoint in checkpoints:
        require_classifier(checkpoint.info.model.name, "ckpt")
    return checkpoints


def make_inputs(checkpoint: Checkpoint, images: SelectedImages) -> Inputs:
    """Build a checkpoint's network on the images' device."""
    model, info = checkpoint.build(), checkpoint.info
    model.to(images.device).to(memory_format=torch.channels_last)
    return Inputs(checkpoint.name, model, images, info.preprocessing, info.classes, checkpoint)


def attention_of(model: Network) -> "Attention":
    """What attention a network has, in the words of the paper's claims."""
    kind = blueprint(model.spec).plan.kind
    if kind is None:
        return "self-attention" if has_attention(model) else "none"
    if kind.name.startswith("dia_lstm"):
        return "DIA-LSTM (Light)" if kind.name == "dia_lstm_light" else "DIA-LSTM"
    return "shared" if kind.shared else "one module per layer"


def facts(checkpoint: Checkpoint, model: Network, attention: str) -> dict[str, str]:
    """What a checkpoint says of itself, by the names of the facts."""
    from dia_analysis import count_parameters  # late: it loads what measures

    info = checkpoint.info
    options = ", ".join(f"{key}={value}" for key, value in sorted(info.model.options.items()))
    epochs = [quantity(int(info.recipe["epochs"]), "epoch")] if "epochs" in info.recipe else []
    kept = [] if info.epoch is None else [f"kept after epoch {info.epoch}"]
    training = [f"recipe {info.recipe.get('name', 'not known')}", *epochs, *kept, f"seed {info.seed}"]
    metrics = (
        f"{name.replace('_', ' ')} {f'{100 * value:.2f} %' if 'accuracy' in name else f'{value:.3f}'}"
        for name, value in info.metrics.items()
    )
    return {
        "network": info.model.name,
        "options": options or "the defaults",
        "attention": attention,
        "parameters": f"{count_parameters(model):,}",
        "input": input_text(info),
        "classes": str(len(info.classes)),
        "trained on": info.data,
        "training": ", ".join(training),
        "precision in training": in_words(info.machine),
        "accuracy in the checkpoint": ", ".join(metrics) or "none",
        "SHA-256 of the file": checkpoint.sha256,
    }


def input_text(info: CheckpointInfo) -> str:
    """What images a network takes."""
    size = info.preprocessing
    return f"{size.height}x{size.width}, {quantity(info.model.in_channels, 'channel')}"
