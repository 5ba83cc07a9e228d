"""dia-train eval: how well checkpoints classify, and for two classes how good a test they are."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cli.common.console import tracked
from cli.common.grey import warn_of_colour
from cli.common.images import open_part, prepared_device
from cli.common.inputs import read_classifiers
from cli.common.naming import network_name
from cli.common.options import DataOptions
from cli.common.publish import Found, Out, about_checkpoints, report_skipped
from dia_analysis.paper.table_xi import beside_table_xi, published_accuracy
from dia_analysis.results.output import write_json
from dia_analysis.xray.diagnosis import (
    HALF,
    NO_PATIENTS,
    Readings,
    Threshold,
    TwoClassResult,
    assess,
    choose_threshold,
    side_by_side,
)
from dia_models import Checkpoint, ModelInputError
from dia_models.classification.evaluated import EvaluatedClassifier, evaluate_checkpoint
from dia_models.classification.held_out import TrainingImages, groups_in_both
from dia_models.data import ImageSource
from dia_models.factory import blueprint


@dataclass(frozen=True)
class Tested(EvaluatedClassifier):
    """A checkpoint on the test images; of two classes, also on the images that its run held out."""

    validation: EvaluatedClassifier | None = None
    two_class: TwoClassResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """The document dia.eval/1, but for its schema."""
        more = {} if self.two_class is None else self.two_class.to_dict() | {"paper": self.published()}
        return super().to_dict() | more

    def published(self) -> dict[str, Any] | None:
        """The paper's accuracies of its network with the same attention."""
        kind = blueprint(self.checkpoint.info.model).plan.kind
        return published_accuracy("" if kind is None else kind.name, self.data, self.classes)

    def summary(self) -> str:
        """Accuracy, per class, and for two classes everything else."""
        return "\n".join([super().summary(), *([] if self.two_class is None else [self.two_class.summary()])])

    def beside_paper(self) -> list[tuple[str, TwoClassResult, dict[str, Any] | None]]:
        """A row of Table XI."""
        size = self.checkpoint.info.preprocessing
        heading = f"{self.checkpoint.name} ({size.height}x{size.width})"
        return [] if self.two_class is None else [(heading, self.two_class, self.published())]


def evaluate_checkpoints(ckpts: Sequence[str], options: DataOptions, out: Out) -> None:
    """Test checkpoints on all images of a data set's test part, print the scores and write them if `out` is given.

    Raises ModelInputError at the end, when all is printed and written, if a network diverged.
    """
    with out.if_given() as taken:
        tested = test_all(ckpts, options)
        document, text = _document(tested), _text(tested)
        about = about_checkpoints([each.checkpoint for each in tested], tested[0].data)
        out.publish(Found(about, document, text, lambda folder: _write(tested, document, folder)), taken)
    if diverged := [said for each in tested if (said := each.diverged()) is not None]:
        more = f" (as did {len(diverged) - 1} more)" if len(diverged) > 1 else ""
        raise ModelInputError("ckpt", f"{diverged[0]}{more}. Take a network from before that, or train it again")


def _document(tested: Sequence[Tested]) -> dict[str, Any]:
    """The document dia.eval/1: of one checkpoint its numbers, of several a list of these and how they differ."""
    if len(tested) == 1:
        return {"schema": "dia.eval/1", **tested[0].to_dict()}
    each = [one.to_dict() for one in tested]
    return {
        "schema": "dia.eval/1",
        "data": tested[0].data,
        "evaluations": each,
        **side_by_side(two_class(tested)).to_dict(),
    }


def _text(tested: Sequence[Tested]) -> str:
    parts = [*(each.summary() for each in tested), *side_by_side(two_class(tested)).summary()]
    paper = beside_table_xi([row for each in tested for row in each.beside_paper()])
    return "\n\n".join([*parts, *filter(None, [paper])])


def two_class(tested: Sequence[Tested]) -> list[TwoClassResult]:
    """The results of those that know two classes."""
    return [each.two_class for each in tested if each.two_class is not None]


def _write(tested: Sequence[Tested], document: dict[str, Any], folder: Path) -> None:
    write_json(folder / "eval.json", document)
    _write_csv(folder / "predictions.csv", tested)
    if validated := [each.validation for each in tested if each.validation is not None]:
        _write_csv(folder / "validation.csv", validated)


def _write_csv(path: Path, parts: Sequence[EvaluatedClassifier]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["checkpoint", "path", "patient", "label", *(f"score_{name}" for name in parts[0].classes)])
        writer.writerows(row for part in parts for row in part.rows())


def test_all(ckpts: Sequence[str], options: DataOptions) -> list[Tested]:
    """Test every checkpoint on the same images. Raises ModelInputError for what does not exist or does not fit."""
    checkpoints = read_classifiers(ckpts)
    first = checkpoints[0]
    for checkpoint in checkpoints:
        if checkpoint.info.classes != first.info.classes:
            message = f"{checkpoint.name} and {first.name} do not know the same classes; give networks that do"
            raise ModelInputError("ckpt", message)
    data = options.data or first.info.data
    source = open_part(options, data, "test" if data in {each.info.data for each in checkpoints} else "any")
    warn_of_colour(checkpoints, source, range(len(source)))
    training = TrainingImages(lambda name: open_part(replace(options, download=False, strict=False), name, "train"))
    tested = [_test(checkpoint, source, data, options, training) for checkpoint in checkpoints]
    report_skipped(source.unreadable, len(source))
    return tested


def _test(
    checkpoint: Checkpoint, source: ImageSource, data: str, options: DataOptions, training: TrainingImages
) -> Tested:
    how: Any = {"device": prepared_device(options.device), "batch_size": options.batch_size, "watch": tracked}
    seen = evaluate_checkpoint(checkpoint, source, data, **how)
    if len(seen.classes) != 2 or seen.predictions.nonfinite:
        return Tested(checkpoint, data, seen.predictions, seen.groups)
    train, held = training.of(checkpoint), training.validation_images(checkpoint)
    validation = None if held is None else evaluate_checkpoint(checkpoint, held, checkpoint.info.data, **how)
    readings = Readings(
        name=checkpoint.name,
        network=network_name(checkpoint),
        class_names=(seen.classes[0], seen.classes[1]),
        image_names=seen.predictions.names,
        patients=seen.groups or seen.predictions.names,
        labels=seen.predictions.positive,
        scores=seen.predictions.scores,
        threshold=_threshold(train, validation),
        in_training=groups_in_both(source, train),
        grouping=source.grouping or NO_PATIENTS,
    )
    return Tested(checkpoint, data, seen.predictions, seen.groups, validation, assess(readings))


def _threshold(train: ImageSource | None, validation: EvaluatedClassifier | None) -> Threshold:
    if validation is None:
        reason = "the training images are not there to look" if train is None else "the run held out no images"
        return Threshold(HALF, f"not chosen, because {reason}")
    return choose_threshold(validation.predictions.positive, validation.predictions.scores, validation.groups)
