"""dia-analyze gradients: measure networks side by side or along training, draw, compare with the paper."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from cli.common.images import SelectedImages
from cli.common.inputs import Inputs
from cli.common.networks import Candidate
from cli.common.options import GradientOptions
from cli.common.publish import Found, Out
from dia_analysis import GradientResult
from dia_analysis.networks import gradients_of
from dia_analysis.paper.gradient_pairs import BesidePlain
from dia_models.data import Preprocessing


def report(
    candidates: list[Candidate], images: SelectedImages, fresh: Preprocessing, given: GradientOptions, out: Out
) -> None:
    """Measure, print the table or the JSON document, and write everything."""
    with out.folder("gradients", list(dict.fromkeys(c.name for c in candidates)), images.data) as taken:
        result = measure(candidates, images, fresh, given)
        images.report_unreadable()
        out.publish(Found.of(result, image_names=images.names), taken)


def measure(
    candidates: list[Candidate], images: SelectedImages, fresh: Preprocessing, given: GradientOptions
) -> BesidePlain:
    """The gradients of every candidate on the same images; networks with random weights see them as `fresh` says."""
    how = {key: getattr(given, key) for key in ("points", "per_block", "mode")}
    networks = (each for one in candidates for each in _opened(one, images, fresh, given.draws))
    return BesidePlain(GradientResult(tuple(gradients_of(network, **how) for network in networks)))


def _opened(candidate: Candidate, images: SelectedImages, fresh: Preprocessing, draws: int) -> Iterator[Inputs]:
    """A checkpoint's network, or one with weights from one seed after the other."""
    if (checkpoint := candidate.read()) is not None:
        yield Inputs.of_checkpoint(checkpoint, images)
        return
    classes = images.source.classes
    for seed in range(images.seed, images.seed + draws):
        model = candidate.fresh(len(classes), len(fresh.mean), seed)
        model.to(images.device).to(memory_format=torch.channels_last)
        yield Inputs(candidate.name, model, replace(images, seed=seed), fresh, classes, weights_seed=seed)
