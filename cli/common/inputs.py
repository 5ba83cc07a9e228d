"""From a command's options to networks and the images they are to see."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from cli.common.console import note
from cli.common.grey import warn_of_colour
from cli.common.images import ANALYSED, SelectedImages, select_images
from cli.common.networks import Candidate, candidates
from cli.common.options import DataOptions, NetworkOptions
from dia_analysis import AnalysisInputError, Provenance
from dia_analysis.probes.points import has_attention
from dia_models import Checkpoint, ModelInputError, OpenedNetwork
from dia_models.checkpoints.untrained import has_statistics
from dia_models.data import Preprocessing, evenly_spaced
from dia_models.data.labels import class_numbers, numbered
from dia_models.factory import blueprint, require_classifier, without_attention
from dia_models.networks.facts import network_facts
from dia_models.networks.open_network import DataFacts

if TYPE_CHECKING:
    from dia_analysis.networks import Known
    from dia_analysis.paper.findings import Attention
    from dia_analysis.paper.measure_untrained import Untrained

STATISTICS_IMAGES = 1024


@dataclass(frozen=True)
class Inputs:
    """A network on the images' device, and the images that it is to see, prepared as it expects them."""

    network: OpenedNetwork
    images: SelectedImages

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    @property
    def model(self) -> nn.Module:
        """The network itself."""
        return self.network.model

    @property
    def preprocessing(self) -> Preprocessing:
        """What its images go through."""
        return self.network.preprocessing

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of its classes, if they are known."""
        return self.network.classes

    @property
    def known(self) -> "Known":
        """What is known of the network. Runs that differ in nothing but their seed have one architecture."""
        from dia_analysis.networks import Known  # late: it loads the analyses

        network, spec, attention = self.network, self.network.spec, attention_of(self.network)
        info = network.checkpoint.info if network.checkpoint else None
        made_from = spec.model_dump(mode="json") if spec else {"name": network.source}
        return Known(
            facts=network_facts(network, attention),
            architecture=(spec.model_dump_json(), self.classes) if spec else network.name,
            attention=attention,
            recorded=network.training == "loaded" or (info is not None and info.epoch != 0 and "epochs" in info.recipe),
            known_trained=network.training == "recorded",
            made_from=made_from,
            plain_from=without_attention(spec).model_dump(mode="json") if spec and "_dia_lstm" in spec.name else None,
            weights_seed=None if network.training == "loaded" else network.seed,
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
        """The same with the numbers of their classes, or rows of 0 and 1 if they are of several.

        Raises ModelInputError for classes that it does not know.
        """
        numbers = class_numbers(self.images.source, self.network.outputs, self.images.data)
        shown = self.images.shown(self.preprocessing, label)
        return ((pixels, numbered(batch.labels, numbers, self.images.data)) for pixels, batch in shown)

    def answered(self, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same, with -1 for images of unknown classes, or of several."""
        try:
            numbers = class_numbers(self.images.source, self.network.outputs, self.images.data)
        except ModelInputError:
            numbers = torch.empty(0)
        for pixels, batch in self.images.shown(self.preprocessing, label):
            known = len(numbers) and batch.labels.ndim == 1 and bool(batch.labels.max() < len(numbers))
            unknown = torch.full((len(pixels),), -1)
            yield pixels, torch.where(batch.labels < 0, unknown, numbers[batch.labels]) if known else unknown

    def located(self, rows: list[int], label: str) -> Iterator[tuple[Tensor, list[int]]]:
        """The images at these positions among the chosen ones, batch by batch, with the positions of those read."""
        indices = [self.images.chosen[row] for row in rows]
        position = {self.images.source.name(index): row for index, row in zip(indices, rows, strict=True)}
        for pixels, batch in self.images.shown(self.preprocessing, label, indices):
            yield pixels, [position[name] for name in batch.names]

    def before_training(self) -> "Untrained | None":
        """The network before its training, batch-norm statistics as they were then, and where its weights come from.

        None if its weights are random anyway.
        """
        from dia_analysis.paper.measure_untrained import Untrained  # late: it loads what measures

        if (found := self.network.untrained()) is None:
            return None
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
        option = "ckpt" if error.argument == "model" and self.network.checkpoint else error.argument
        return AnalysisInputError(option, f"{self.name}: {error}")

    def provenance(self) -> Provenance:
        """Where results from these inputs come from."""
        return self.images.provenance(self.name, self.network.sha256)


def open_networks(
    given: NetworkOptions, options: DataOptions, otherwise: int = ANALYSED, paths: Sequence[Path] = ()
) -> list[Inputs]:
    """Networks, under names that tell them apart, and the same images for all; as `select_images`."""
    found = candidates(given)
    images = select_images(options, default_data(found), otherwise, paths)
    opened = [open_on(each, images) for each in found]
    warn_of_colour([each.network for each in opened], images.source, images.chosen)
    return opened


def open_each(given: NetworkOptions, options: DataOptions) -> list[Inputs]:
    """The same, each checkpoint with images of its own data where the options name none."""
    return [open_on(each, select_images(options, default_data([each]))) for each in candidates(given)]


def open_one(
    given: NetworkOptions,
    options: DataOptions,
    command: str,
    otherwise: int = ANALYSED,
    paths: Sequence[Path] = (),
) -> Inputs:
    """The same for a command that takes one network. Raises ModelInputError if there are more."""
    opened = open_networks(given, options, otherwise, paths)
    if len(opened) > 1:
        raise ModelInputError("model", f"{len(opened)} networks given; {command} takes one")
    return opened[0]


def default_data(found: Sequence[Candidate]) -> str | None:
    """The data that the first checkpoint was trained on, if there is one. Raises ModelInputError for no classifier."""
    for each in found:
        if each.saved:
            info = Checkpoint.read(each.source).info
            require_classifier(info.model.name, "ckpt")
            return info.data
    return None


def open_on(candidate: Candidate, images: SelectedImages, seed: int = 0, facts: DataFacts | None = None) -> Inputs:
    """Open a network on the images' device; what was assumed is said once."""
    facts = facts or images.facts(candidate)
    network = candidate.open(facts, seed)
    network.model.to(images.device).to(memory_format=torch.channels_last)
    say_assumed(network)
    return Inputs(network, images)


def say_assumed(network: OpenedNetwork) -> None:
    """Say what nothing said of a trained network's images."""
    if (assumed := network.assumptions()) and network.training != "none":
        note(f"{network.name}: assumed, since nothing says it: {'; '.join(assumed)}")


def attention_of(network: OpenedNetwork) -> "Attention | None":
    """What attention a network of ours has, in the words of the paper's claims; None of any other."""
    if network.spec is None:
        return None
    kind = blueprint(network.spec).plan.kind
    if kind is None:
        return "self-attention" if has_attention(network.model, image_size=network.preprocessing.size) else "none"
    if kind.name.startswith("dia_lstm"):
        return "DIA-LSTM (Light)" if kind.name == "dia_lstm_light" else "DIA-LSTM"
    return "shared" if kind.shared else "one module per layer"
