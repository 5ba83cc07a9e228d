"""dia-analyze gradients: measure networks side by side or along training, draw, compare with the paper."""

from collections.abc import Iterator
from dataclasses import replace

from matplotlib.figure import Figure

import figures
from cli.common.images import SelectedImages
from cli.common.inputs import Inputs, open_on
from cli.common.networks import Candidate
from cli.common.options import GradientOptions
from cli.common.publish import Found, Out
from dia_analysis import GradientResult
from dia_analysis.networks import gradients_of
from dia_analysis.paper.gradient_pairs import BesidePlain
from dia_models import Checkpoint


def report(candidates: list[Candidate], images: SelectedImages, given: GradientOptions, out: Out) -> None:
    """Measure, print the table or the JSON document, and write everything."""
    with out.folder("gradients", list(dict.fromkeys(c.name for c in candidates)), images.data) as taken:
        result = measure(candidates, images, given)
        images.report_unreadable()
        out.publish(found(result, images), taken)


def measure(candidates: list[Candidate], images: SelectedImages, given: GradientOptions) -> BesidePlain:
    """The gradients of every candidate on the same images."""
    how = {key: getattr(given, key) for key in ("points", "per_block", "mode")}
    networks = (each for one in candidates for each in _opened(one, images, given.draws, candidates[0]))
    return BesidePlain(GradientResult(tuple(gradients_of(network, **how) for network in networks)))


def _opened(candidate: Candidate, images: SelectedImages, draws: int, first: Candidate) -> Iterator[Inputs]:
    """A trained network, or one with weights from one seed after the other; these see images as a first checkpoint."""
    if not candidate.random:
        yield open_on(candidate, images)
        return
    facts = (
        images.facts(candidate)
        if not first.saved
        else replace(images.facts(first), preprocessing=Checkpoint.read(first.source).info.preprocessing)
    )
    for seed in range(images.seed, images.seed + draws):
        yield open_on(candidate, replace(images, seed=seed), seed, facts)


def found(result: BesidePlain, images: SelectedImages) -> Found:
    """What to print and to write."""
    return Found.of(result, lambda: draw(result.result), images.names)


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
