"""dia-analyze ablate: networks with their attention maps replaced, side by side."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cli.common.console import note
from cli.common.images import SelectedImages, open_part, spread_out
from cli.common.inputs import Inputs
from cli.common.options import DataOptions
from cli.common.publish import Found, Out
from dia_analysis import AblationResult, measure_ablation
from dia_analysis.results.words import quantity
from dia_models import ModelInputError
from dia_models.data import FileImages, ImageSource

MINUTE = 60  # seconds


@dataclass(frozen=True)
class Ablated:
    """What is replaced, and by what, as `measure_ablation` takes it."""

    replace_by: Sequence[str]
    layers: Sequence[str] | None
    points: Sequence[str] | None
    freeze_others: bool
    recalibrate_bn: bool


def report(everyone: Sequence[Inputs], options: DataOptions, fit_images: int | None, how: Ablated, out: Out) -> None:
    """Measure every network, print the tables or the JSON document, and write everything."""
    with out.folder("ablate", [inputs.name for inputs in everyone], everyone[0].images.data) as taken:
        result = AblationResult.beside([measure(inputs, options, fit_images, how) for inputs in everyone])
        everyone[0].images.report_unreadable()
        out.publish(Found.of(result, dict, everyone[0].images.names), taken)


def measure(inputs: Inputs, options: DataOptions, fit_images: int | None, how: Ablated) -> AblationResult:
    """Ablate one network, with means over training images, or over half of the images where there are no others."""
    fit = fit_part(inputs.images, options, fit_images)
    return measure_ablation(
        inputs.model,
        Again(lambda: inputs.answered(inputs.name)),
        None if fit is None else Again(lambda: inputs.of(fit).answered(f"{inputs.name}, means")),
        replace_by=how.replace_by,
        layers=how.layers,
        points=how.points,
        freeze_others=how.freeze_others,
        recalibrate_bn=how.recalibrate_bn,
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


def fit_part(images: SelectedImages, options: DataOptions, count: int | None) -> SelectedImages | None:
    """So many training images, by default as many as there are images; None if the data has no training part.

    Raises ModelInputError for more images than there are, or for a number where there is no training part.
    """
    train = _training_part(images, options, count)
    if train is None:
        return None
    others = _not_among(train, images)
    number = count or min(len(images), len(others))
    if not 0 < number <= len(others):
        raise ModelInputError(
            "fit_images", f"{number} asked for, {images.data} has {len(others)} training images to give"
        )
    return replace(images, source=others, chosen=spread_out(number, others, options.seed))


def _not_among(train: ImageSource, images: SelectedImages) -> ImageSource:
    """The training images without those that are analyzed, which in a folder without parts may be among them."""
    source = images.source
    if not (isinstance(train, FileImages) and isinstance(source, FileImages) and train.root == source.root):
        return train
    analyzed = set(images.names())
    return train.take([i for i in range(len(train)) if train.name(i) not in analyzed])


def _training_part(images: SelectedImages, options: DataOptions, count: int | None) -> ImageSource | None:
    try:
        return open_part(options, images.data, "train")
    except ModelInputError as error:
        if count is None:
            note(f"{images.data} has no training part: half of the images give the means, the others the accuracy")
            return None
        raise ModelInputError(
            "fit_images", f"{count} given, but {images.data} has no training part: {error}"
        ) from error


def announced(name: str, images: int) -> Callable[[int, float], None]:
    """Says what it will cost, if that is more than a minute."""

    def announce(passes: int, seconds: float) -> None:
        if seconds > MINUTE:
            minutes = quantity(round(seconds / MINUTE), "minute")
            note(f"{name}: {passes} passes of {images} images, about {minutes}; fewer with --images or --replace-by")

    return announce
