"""dia-analyze gradients: measure networks side by side or along training, draw, compare with the paper."""

from collections.abc import Iterator
from dataclasses import replace

from cli.common.images import SelectedImages
from cli.common.inputs import Inputs, open_on
from cli.common.networks import Candidate
from cli.common.options import GradientOptions
from cli.common.publish import Found, Out
from dia_analysis import GradientResult
from dia_analysis.networks import gradients_of
from dia_analysis.paper.gradient_pairs import BesidePlain
from dia_models.networks.data_facts import DataFacts


def report(candidates: list[Candidate], images: SelectedImages, given: GradientOptions, out: Out) -> None:
    """Measure, print the table or the JSON document, and write everything."""
    with out.folder("gradients", list(dict.fromkeys(c.name for c in candidates)), images.data) as taken:
        result = measure(candidates, images, given)
        images.report_unreadable()
        out.publish(Found.of(result, image_names=images.names), taken, images.source)


def measure(candidates: list[Candidate], images: SelectedImages, given: GradientOptions) -> BesidePlain:
    """The gradients of every candidate on the same images; random weights see them as a first checkpoint does."""
    first = candidates[0]
    facts = DataFacts(first.open().preprocessing, images.source.classes) if first.saved else None
    how = {key: getattr(given, key) for key in ("points", "per_block", "mode")}
    networks = (each for one in candidates for each in _opened(one, images, given.draws, facts))
    return BesidePlain(GradientResult(tuple(gradients_of(network, **how) for network in networks)))


def _opened(candidate: Candidate, images: SelectedImages, draws: int, facts: DataFacts | None) -> Iterator[Inputs]:
    """A trained network, or one with weights from one seed after the other."""
    if not candidate.random:
        yield open_on(candidate, images)
        return
    facts = facts or candidate.facts(images)
    for seed in range(images.seed, images.seed + draws):
        opened = open_on(candidate, replace(images, seed=seed), seed, facts)
        yield opened
        if opened.network.training != "none":  # the user's code gives it weights, the same from every seed
            return
