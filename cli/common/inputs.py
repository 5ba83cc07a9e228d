"""From a command's options to networks and the images they are to see."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.common.console import note, tracked
from cli.common.images import ANALYZED, SelectedImages, select_images
from cli.common.networks import Candidate, candidates
from cli.common.options import DataOptions, NetworkOptions
from dia_analysis import AnalysisInputError, Provenance
from dia_analysis.distributed import share
from dia_analysis.explain.targets import Scores
from dia_analysis.probes.points import has_attention
from dia_models import Checkpoint, ModelInputError, OpenedNetwork
from dia_models.data import Batch, ImageSource
from dia_models.data.chest_xray import CLASSES
from dia_models.data.colored import warnings_of_color
from dia_models.data.labels import has_rows
from dia_models.factory import attention_words, require_classifier, without_attention
from dia_models.networks.data_facts import DataFacts
from dia_models.networks.facts import network_facts
from dia_models.networks.prepared import PreparedNetwork

if TYPE_CHECKING:
    from dia_analysis.networks import Known
    from dia_analysis.paper.findings import Attention
    from dia_analysis.paper.measure_untrained import Untrained


@dataclass(frozen=True)
class Inputs(PreparedNetwork):
    """A network and images as analyses take them (`dia_analysis.networks.Network`)."""

    images: SelectedImages

    @property
    def known(self) -> "Known":
        """What is known of the network. Loaded weights are a training only where an accuracy is measured too."""
        from dia_analysis.networks import Known  # late: it loads the analyses

        network, spec = self.network, self.network.spec
        info, attention = network.checkpoint and network.checkpoint.info, self._attention()
        plain = without_attention(spec) if spec and "_dia_lstm" in spec.name else None
        return Known(
            facts=network_facts(network, attention),
            architecture=self.architecture,
            attention=attention,
            recorded=network.training == "loaded" or bool(info and "epochs" in info.recipe and info.epoch != 0),
            known_trained=network.training == "recorded",
            made_from=spec.model_dump(mode="json") if spec else {"name": network.source},
            plain_from=plain.model_dump(mode="json") if plain else None,
            weights_seed=None if network.training == "loaded" else network.seed,
            epoch=info.epoch if info else None,
            scores=self._scores(),
        )

    def _scores(self) -> Scores:
        """What the outputs become: classes exclude each other, findings do not."""
        if not (self.network.separate or has_rows(self.images.source)):
            return "softmax"
        return "given" if self.network.gives_probabilities else "sigmoid"

    def _attention(self) -> "Attention | None":
        if (spec := self.network.spec) is None:
            return None
        return attention_words(spec) or ("self-attention" if self._attends() else "none")

    def _attends(self) -> bool:
        return has_attention(self.model, image_size=self.preprocessing.size)

    @property
    def patients(self) -> Callable[[], list[str]] | None:
        """What says whose the images are that this process has seen; None where the data does not say it."""
        return None if self.images.source.group_of is None else self._patients

    def _patients(self) -> list[str]:
        images, group_of = self.images, self.images.source.group_of
        assert group_of is not None
        names = map(images.source.name, share(images.chosen, images.batch_size))
        return [group_of(name) for name in names if name not in images.source.unreadable]

    def watch(self, batches: Iterable[Batch], count: int, label: str) -> Iterable[Batch]:
        """With a progress bar."""
        return tracked(batches, count, label)

    def before_training(self) -> "Untrained | None":
        """The network before its training, batch-norm statistics as they were then, and where its weights come from."""
        from dia_analysis.paper.measure_untrained import Untrained  # late: it loads what measures

        found = self.untrained()
        return Untrained(found.model, found.weights, found.exact, self.reestimate) if found else None

    def blamed(self, error: AnalysisInputError) -> AnalysisInputError:
        """An error of an analysis, naming the network."""
        option = "ckpt" if error.argument == "model" and self.network.checkpoint else error.argument
        return AnalysisInputError(option, f"{self.name}: {error}")

    def provenance(self) -> Provenance:
        """Where results from these inputs come from."""
        images, sha256 = self.images, None if self.network.training == "none" else self.network.sha256
        return Provenance(self.name, sha256, images.data, images.selection, images.seed)


def open_networks(
    given: NetworkOptions,
    options: DataOptions,
    otherwise: int = ANALYZED,
    paths: Sequence[Path] = (),
    runs: Iterable[list[Path]] = (),
) -> list[Inputs]:
    """Networks, under names that tell them apart, and the same images for all; as `select_images`.

    `runs` are the files of runs, as `candidates` takes them.
    """
    found = candidates(given, runs)
    images = select_images(options, default_data(found), otherwise, paths)
    opened = [open_on(each, images) for each in found]
    warn_of_color([each.network for each in opened], images.source, images.chosen)
    return opened


def open_each(given: NetworkOptions, options: DataOptions) -> list[Inputs]:
    """The same, each checkpoint with images of its own data where the options name none."""
    return [open_on(each, select_images(options, default_data([each]))) for each in candidates(given)]


def open_one(
    given: NetworkOptions, options: DataOptions, otherwise: int = ANALYZED, paths: Sequence[Path] = ()
) -> Inputs:
    """The same for a command that takes one network. Raises ModelInputError if there are more."""
    opened = open_networks(given, options, otherwise, paths)
    if len(opened) > 1:
        raise ModelInputError("ckpt", f"{len(opened)} networks given; this command takes one")
    return opened[0]


def default_data(found: Sequence[Candidate]) -> str | None:
    """The data that the first checkpoint was trained on, if there is one. Raises ModelInputError for no classifier."""
    infos = [Checkpoint.read(each.source).info for each in found if each.saved]
    for info in infos:
        require_classifier(info.model.name, "ckpt")
    return infos[0].data if infos else None


def open_on(candidate: Candidate, images: SelectedImages, seed: int = 0, facts: DataFacts | None = None) -> Inputs:
    """Open a network on the images' device; what was assumed is said."""
    network = candidate.open(facts or candidate.facts(images), seed)
    say_assumed(network)
    return Inputs.on_device(network, images)


def say_assumed(network: OpenedNetwork) -> None:
    """Say what was assumed of a trained network's images."""
    if (assumed := network.assumptions()) and network.training != "none":
        note(f"{network.name}: assumed, since nothing says it: {'; '.join(assumed)}")


def warn_of_color(networks: Sequence[OpenedNetwork], source: ImageSource, chosen: Sequence[int]) -> None:
    """Warn of colored pictures that a chest X-ray network is shown."""
    if any(tuple(name.upper() for name in each.classes or ()) == CLASSES for each in networks):
        for line in warnings_of_color(source, chosen):
            note(f"warning: {line}")
