"""dia-train eval: how well checkpoints classify, or find objects, and for two classes how good a test they are."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cli.common.console import tracked
from cli.common.grey import warn_of_colour
from cli.common.images import open_part, prepared_device
from cli.common.inputs import read_classifiers
from cli.common.naming import network_name, read_named
from cli.common.options import DataOptions
from cli.common.publish import Found, Out, about_checkpoints, report_skipped
from dia_analysis import Provenance
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
from dia_models.data.detection.sets import open_scenes
from dia_models.detection.average_precision import require_scoring
from dia_models.detection.evaluated import evaluate_detector
from dia_models.factory import blueprint, task_of

BOXES = ("checkpoint", "image", "class", "score", "x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Tested:
    """A checkpoint on the test images; of two classes, also on the images that its run held out."""

    found: EvaluatedClassifier
    validation: EvaluatedClassifier | None = None
    two_class: TwoClassResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """The document dia.eval/1, but for its schema."""
        return self.found.to_dict() | ({} if self.two_class is None else self.two_class.to_dict())

    def summary(self) -> str:
        """Accuracy, per class, and for two classes everything else."""
        return "\n".join([self.found.summary(), *([] if self.two_class is None else [self.two_class.summary()])])


def evaluate(ckpts: Sequence[str], options: DataOptions, out: Out) -> None:
    """Test checkpoints on all images of a data set's test part, print the scores and write them if `out` is given."""
    found = {task_of(Checkpoint.read(ckpt).info.model.name) == "detection" for ckpt in ckpts}
    if len(found) > 1:
        raise ModelInputError("ckpt", "detectors and other networks have no score in common; test them one by one")
    (evaluate_detectors if found == {True} else evaluate_classifiers)(ckpts, options, out)


def evaluate_classifiers(ckpts: Sequence[str], options: DataOptions, out: Out) -> None:
    """Raises ModelInputError at the end, when all is printed and written, if a network diverged."""
    with out.if_given() as taken:
        tested = test_all(ckpts, options)
        several = side_by_side(two_class(tested))
        sizes = [each.found.checkpoint.info.preprocessing for each in tested]
        rows = {f"{t.found.name} ({s.height}x{s.width})": t.two_class for t, s in zip(tested, sizes, strict=True)}
        paper = beside_table_xi({heading: result for heading, result in rows.items() if result is not None})
        text = "\n\n".join([*(each.summary() for each in tested), *several.summary(), *filter(None, [paper])])
        files = {"predictions.csv": [each.found for each in tested]}
        files |= {"validation.csv": held} if (held := [each.validation for each in tested if each.validation]) else {}
        tables = {name: _scores(parts) for name, parts in files.items()}
        found = _found([each.found.checkpoint for each in tested], tested, text, tables, several.to_dict())
        out.publish(found, taken)
    if diverged := [said for each in tested if (said := each.found.diverged()) is not None]:
        more = f" (as did {len(diverged) - 1} more)" if len(diverged) > 1 else ""
        raise ModelInputError("ckpt", f"{diverged[0]}{more}. Take a network from before that, or train it again")


def _scores(parts: Sequence[EvaluatedClassifier]) -> list[Sequence[Any]]:
    heads = ["checkpoint", "path", "patient", "label", *(f"score_{name}" for name in parts[0].classes)]
    return [heads, *(row for part in parts for row in part.rows())]


def evaluate_detectors(ckpts: Sequence[str], options: DataOptions, out: Out) -> None:
    """By COCO's average precision."""
    with out.if_given() as taken:
        require_scoring()
        checkpoints = read_named(ckpts)
        data = options.data or checkpoints[0].info.data
        scenes = open_scenes(data, "test", options.data_dir, strict=options.strict)
        found = [evaluate_detector(checkpoint, scenes, data, **_how(options)) for checkpoint in checkpoints]
        report_skipped(scenes.unreadable, len(scenes))
        text = "\n\n".join(each.summary() for each in found)
        boxes = [BOXES, *(row for each in found for row in each.rows(scenes.names))]
        out.publish(_found(checkpoints, found, text, {"detections.csv": boxes}, {}), taken)


def _found(
    checkpoints: Sequence[Checkpoint], tested: Sequence[Any], text: str, tables: Mapping[str, Iterable[Any]], more: Any
) -> Found:
    """The document dia.eval/1: of one checkpoint its numbers, of several a list of these and `more`."""
    each = [one.to_dict() for one in tested]
    data = each[0]["data"]
    document = {"schema": "dia.eval/1", **(each[0] if len(each) == 1 else {"data": data, "evaluations": each, **more})}

    def write(folder: Path) -> None:
        write_json(folder / "eval.json", document)
        for name, rows in tables.items():
            with (folder / name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)

    return Found(about_checkpoints(checkpoints, data), document, text, write)


def _how(options: DataOptions) -> dict[str, Any]:
    return {"device": prepared_device(options.device), "batch_size": options.batch_size, "watch": tracked}


def two_class(tested: Sequence[Tested]) -> list[TwoClassResult]:
    """The results of those that know two classes."""
    return [each.two_class for each in tested if each.two_class is not None]


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
    seen = evaluate_checkpoint(checkpoint, source, data, **_how(options))
    if len(seen.classes) != 2 or seen.predictions.nonfinite:
        return Tested(seen)
    train, held = training.of(checkpoint), training.validation_images(checkpoint)
    validation = None if held is None else evaluate_checkpoint(checkpoint, held, checkpoint.info.data, **_how(options))
    readings = Readings(
        name=checkpoint.name,
        network=network_name(checkpoint.info.model),
        class_names=(seen.classes[0], seen.classes[1]),
        image_names=seen.predictions.names,
        patients=seen.groups or seen.predictions.names,
        labels=seen.predictions.positive,
        scores=seen.predictions.scores,
        threshold=_threshold(train, validation),
        in_training=groups_in_both(source, train),
        grouping=source.grouping or NO_PATIENTS,
    )
    kind, origin = blueprint(checkpoint.info.model).plan.kind, Provenance(checkpoint.name, checkpoint.sha256, data)
    paper = published_accuracy("" if kind is None else kind.name, data, seen.classes)
    return Tested(seen, validation, assess(readings, paper=paper, provenance=origin))


def _threshold(train: ImageSource | None, validation: EvaluatedClassifier | None) -> Threshold:
    if validation is None:
        reason = "the training images are not there to look" if train is None else "the run held out no images"
        return Threshold(HALF, f"not chosen, because {reason}")
    return choose_threshold(validation.predictions.positive, validation.predictions.scores, validation.groups)
