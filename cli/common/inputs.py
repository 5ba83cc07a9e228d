"""From a command's options to networks and the images they are to see."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.common.console import note, tracked
from cli.common.images import ANALYSED, SelectedImages, select_images
from cli.common.options import DataOptions
from dia_analysis import AnalysisInputError, Provenance
from dia_analysis.probes.points import has_attention
from dia_models import Checkpoint
from dia_models.checkpoints.facts import facts
from dia_models.checkpoints.names import read_named
from dia_models.checkpoints.prepared import PreparedNetwork
from dia_models.data import Batch, ImageSource
from dia_models.data.chest_xray import CLASSES
from dia_models.data.colored import warnings_of_color
from dia_models.factory import attention_words, require_classifier, without_attention

if TYPE_CHECKING:
    from dia_analysis.networks import Known
    from dia_analysis.paper.measure_untrained import Untrained


@dataclass(frozen=True)
class Inputs(PreparedNetwork):
    """A network and images as analyses take them (`dia_analysis.networks.Network`)."""

    images: SelectedImages

    @property
    def recorded(self) -> bool:
        """Whether the checkpoint records a training, and is not of a run's beginning."""
        return self.info is not None and "epochs" in self.info.recipe and self.info.epoch != 0

    @property
    def known(self) -> "Known":
        """What is known of the network."""
        from dia_analysis.networks import Known  # late: it loads the analyses

        spec, info = self.model.spec, self.info
        attention = attention_words(spec) or ("self-attention" if has_attention(self.model) else "none")
        return Known(
            facts={} if self.checkpoint is None else facts(self.checkpoint, self.model, attention),
            architecture=self.architecture,
            attention=attention,
            recorded=self.recorded,
            known_trained=info is not None and bool(info.recipe) and info.epoch != 0,
            made_from=spec.model_dump(mode="json"),
            plain_from=without_attention(spec).model_dump(mode="json") if "_dia_lstm" in spec.name else None,
            weights_seed=self.weights_seed if info is None else info.seed,
            epoch=None if info is None else info.epoch,
        )

    def watch(self, batches: Iterable[Batch], count: int, label: str) -> Iterable[Batch]:
        """With a progress bar."""
        return tracked(batches, count, label)

    def before_training(self) -> "Untrained":
        """The network before its training, batch-norm statistics as they were then, and where its weights come from."""
        from dia_analysis.paper.measure_untrained import Untrained  # late: it loads what measures

        found = self.untrained()
        return Untrained(found.model, found.weights, found.exact, self.reestimate)

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
    warn_of_color(checkpoints, images.source, images.chosen)
    return [Inputs.of_checkpoint(checkpoint, images) for checkpoint in checkpoints]


def open_each(ckpts: Sequence[str], options: DataOptions) -> list[Inputs]:
    """The same, each checkpoint with images of its own data where the options name none."""
    return [Inputs.of_checkpoint(c, select_images(options, c.info.data)) for c in read_classifiers(ckpts)]


def read_classifiers(ckpts: Sequence[str]) -> list[Checkpoint]:
    """Checkpoints of classifiers, under names that tell them apart. Raises ModelInputError for another network."""
    checkpoints = read_named(ckpts)
    for checkpoint in checkpoints:
        require_classifier(checkpoint.info.model.name, "ckpt")
    return checkpoints


def warn_of_color(checkpoints: Sequence[Checkpoint], source: ImageSource, chosen: Sequence[int]) -> None:
    """Warn of colored pictures that a chest X-ray network is shown."""
    if any(tuple(name.upper() for name in each.info.classes) == CLASSES for each in checkpoints):
        for line in warnings_of_color(source, chosen):
            note(f"warning: {line}")
