"""dia-train fold."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from cli.analyses.ablate import announced, fit_part
from cli.common.console import note
from cli.common.images import SelectedImages, open_part
from cli.common.inputs import Inputs, open_one
from cli.common.options import DataOptions, FoldOptions, NetworkOptions
from cli.common.publish import Found, Out
from dia_analysis import CostResult, Subject, measure_cost
from dia_analysis.folding.results import AFTER, BEFORE, EVERY, FoldingResult
from dia_models import Folding, fold_attention
from dia_models.data import ImageSource, MemoryImages
from dia_models.data.splits import hold_out
from dia_models.networks.folded_files import save_folded

TIMED = 32  # images in a batch


def fold(networks: NetworkOptions, given: FoldOptions, options: DataOptions, out: Out) -> None:
    """Fold the gates of one network, print what that costs and saves, and write it with its weights."""
    inputs = open_one(networks, options)
    with out.folder("fold", [inputs.name], inputs.images.data) as taken:
        means, validation, test = parts_of(inputs, options)
        folding = fold_attention(
            inputs.model,
            inputs.of(means).answered("means"),
            inputs.of(validation).answered("validation images"),
            inputs.of(test).answered("test images"),
            layers=given.layers,
            max_accuracy_drop=given.max_accuracy_drop,
            seed=options.seed,
            announce=announced(inputs.name, len(validation), "--images or --layers"),
        )
        result = FoldingResult.of(folding, inputs.name, costs(inputs, folding, given.rounds), inputs.provenance())
        test.report_unreadable()
        found = Found.of(result, image_names=test.names)
        data = inputs.images.data
        out.publish(found.beside(lambda folder: save_folded(folder, folding.network, inputs.network, data)), taken)


def parts_of(inputs: Inputs, options: DataOptions) -> tuple[SelectedImages, SelectedImages, SelectedImages]:
    """The images for the means, those by which layers are chosen, and those on which the accuracy is reported.

    Layers are chosen on the images that the network's run held out for validation; where that is not known, on training
    images; and where there are none, on a third of the images.
    """
    images = inputs.images
    if (held := _held_out(inputs, options)) is not None:
        means, validation = (_spread(images, source, len(images)) for source in held)
        return means, validation, images
    train = fit_part(images, options, None)
    if train is None:
        note("a third of the images each gives the means, chooses the layers, and gives the accuracy")
        thirds = [replace(images, chosen=images.chosen[start::3]) for start in range(3)]
        return thirds[0], thirds[1], thirds[2]
    note("no validation images are known of this network: half of the training images taken choose the layers")
    return replace(train, chosen=train.chosen[::2]), replace(train, chosen=train.chosen[1::2]), images


def _held_out(inputs: Inputs, options: DataOptions) -> Sequence[ImageSource] | None:
    """The images that the run of a checkpoint trained on, and those that it held out; None if that is not known."""
    checkpoint = inputs.network.checkpoint
    fraction = None if checkpoint is None else checkpoint.info.recipe.get("validation")
    if checkpoint is None or not isinstance(fraction, float) or checkpoint.info.data != inputs.images.data:
        return None
    train = open_part(options, checkpoint.info.data, "train")
    size, channels = inputs.preprocessing.size, len(inputs.preprocessing.mean)
    decoded = train if isinstance(train, MemoryImages) else train.load(size, channels)
    kept, held = hold_out(decoded, fraction, checkpoint.info.seed)
    return None if held is None else (kept, held)


def _spread(images: SelectedImages, source: ImageSource, most: int) -> SelectedImages:
    how: Any = {"batch_size": images.batch_size, "seed": images.seed, "device": images.device}
    return SelectedImages.spread(images.data, source, min(most, len(source)), **how)


def costs(inputs: Inputs, folding: Folding, rounds: int) -> CostResult:
    """The network before, folded, and with every gate folded that can be."""
    device = inputs.images.device
    shape = (TIMED, len(inputs.preprocessing.mean), *inputs.preprocessing.size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(inputs.images.seed))
    images = images.to(device, memory_format=torch.channels_last)
    models = {BEFORE: inputs.model, AFTER: folding.model, EVERY: folding.all_folded}
    subjects = {name: Subject(model, images, BEFORE, inputs.provenance()) for name, model in models.items()}
    return measure_cost(subjects, rounds=rounds, seed=inputs.images.seed)
