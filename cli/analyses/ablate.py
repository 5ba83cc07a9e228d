"""dia-analyze ablate: networks with their attention maps replaced, side by side."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cli.common.console import note
from cli.common.images import SelectedImages, open_part
from cli.common.inputs import Inputs
from cli.common.options import AblationOptions, DataOptions
from cli.common.publish import Found, Out
from dia_analysis import AblationResult, measure_ablation
from dia_analysis.ablation.findings import is_mostly_fixed
from dia_analysis.ablation.replacements import REPLACEMENTS, check_replacements
from dia_analysis.results.words import quantity
from dia_models import ModelInputError, list_checkpoints
from dia_models.data import FileImages, ImageSource

MINUTE = 60  # seconds


def report(everyone: Sequence[Inputs], given: AblationOptions, options: DataOptions, out: Out) -> None:
    """Measure every network, print the tables or the JSON document, and write everything."""
    check_replacements(given.replace_by or list(REPLACEMENTS))
    with out.folder("ablate", [inputs.name for inputs in everyone], everyone[0].images.data) as taken:
        result = AblationResult.beside([measure(inputs, given, options) for inputs in everyone])
        everyone[0].images.report_unreadable()
        found = Found.of(result, image_names=everyone[0].images.names)
        out.publish(found.beside(text=suggestion(everyone, result)), taken, everyone[0].images.source)


def suggestion(everyone: Sequence[Inputs], result: AblationResult) -> str:
    """The command that takes away gates whose means cost little; empty where there are none."""
    fixed = [each for each, network in zip(everyone, result.networks, strict=True) if is_mostly_fixed(network)]
    if not fixed:
        return ""
    first = fixed[0]
    option = "--ckpt" if first.network.checkpoint else "--model"
    source = first.name if first.name in list_checkpoints() else first.network.source
    command = f"dia-train fold {option} {source} --data {first.images.data}"
    return f"\nIts gates can be folded into the layers beside them, and what that costs be measured: {command}"


def measure(inputs: Inputs, given: AblationOptions, options: DataOptions) -> AblationResult:
    """Ablate one network, with means over training images, or over half of the images where there are no others."""
    return measure_ablation(
        inputs.model,
        Again(lambda: inputs.answered(inputs.name)),
        fit_batches(inputs, options, given.fit_images),
        replace_by=given.replace_by or list(REPLACEMENTS),
        layers=given.layers,
        points=given.points,
        freeze_others=given.freeze_others,
        state=given.state,
        recalibrate_bn=given.recalibrate_bn,
        swap=given.swap or None,
        patients=inputs.patients,
        seed=options.seed,
        name=inputs.name,
        announce=announced(inputs.name, len(inputs.images)),
        provenance=inputs.provenance(),
    )


@dataclass(frozen=True)
class Again:
    """Batches that are read anew each time they are gone through."""

    start: Callable[[], Iterable[Any]]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.start())


def fit_batches(inputs: Inputs, options: DataOptions, count: int | None = None) -> Again | None:
    """The images for the means, as `fit_part` chooses them, with their classes; None if there are no others."""
    fit = fit_part(inputs.images, options, count)
    return None if fit is None else Again(lambda: inputs.of(fit).answered(f"{inputs.name}, means"))


def fit_part(images: SelectedImages, options: DataOptions, count: int | None) -> SelectedImages | None:
    """So many training images, by default as many as there are images; None if the data has no training part.

    Raises ModelInputError for more images than there are, or for a number where there is no training part.
    """
    train = _training_part(images, options, count)
    if train is None:
        return None
    others = _not_among(train, images)
    if not len(others) and count is None:
        note(f"{images.data} has no training images beside these: half give the means, the others the accuracy")
        return None
    number = count or min(len(images), len(others))
    if not 0 < number <= len(others):
        raise ModelInputError(
            "fit_images", f"{number} asked for, {images.data} has {len(others)} training images to give"
        )
    how: Any = {"batch_size": images.batch_size, "seed": images.seed, "device": images.device}
    return SelectedImages.spread(images.data, others, number, **how)


def _not_among(train: ImageSource, images: SelectedImages) -> ImageSource:
    """The training images without those that are analyzed, which in a folder without parts may be among them."""
    source = images.source
    if not (isinstance(train, FileImages) and isinstance(source, FileImages) and train.root == source.root):
        return train
    analyzed = set(images.names())
    return train.take([i for i in range(len(train)) if train.name(i) not in analyzed])


def _training_part(images: SelectedImages, options: DataOptions, count: int | None) -> ImageSource | None:
    kind, colon, _ = images.data.partition(":")
    try:
        if images.named or (colon and kind != "folder"):
            raise ModelInputError("data", "images that are given as they are have no parts")
        return open_part(options, images.data, "train")
    except ModelInputError as error:
        if count is None:
            note(f"{images.data} has no training part: half of the images give the means, the others the accuracy")
            return None
        raise ModelInputError(
            "fit_images", f"{count} given, but {images.data} has no training part: {error}"
        ) from error


def announced(name: str, images: int, fewer: str = "--images or --replace-by") -> Callable[[int, float], None]:
    """Says what it will cost, if that is more than a minute, and what makes it less."""

    def announce(passes: int, seconds: float) -> None:
        if seconds > MINUTE:
            minutes = quantity(round(seconds / MINUTE), "minute")
            note(f"{name}: {passes} passes of {images} images, about {minutes}; fewer with {fewer}")

    return announce
