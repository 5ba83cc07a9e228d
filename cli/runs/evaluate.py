"""dia-train eval: how well checkpoints classify, or find objects, and for two classes how good a test they are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cli.common.console import tracked
from cli.common.images import open_part
from cli.common.inputs import read_classifiers, warn_of_color
from cli.common.options import DataOptions
from cli.common.publish import Found, Out, about_checkpoints, report_skipped
from dia_analysis import Provenance
from dia_analysis.paper.table_xi import beside_table_xi, published_accuracy
from dia_analysis.results.output import write_csv, write_json
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
from dia_models.checkpoints.names import read_named
from dia_models.classification.evaluated import EvaluatedClassifier, evaluate_checkpoints
from dia_models.data.detection.sets import open_scenes
from dia_models.detection.average_precision import require_scoring
from dia_models.detection.evaluated import evaluate_detector
from dia_models.factory import blueprint, task_of
from dia_models.training.device import process_device

BOXES = ("checkpoint", "image", "class", "score", "x1", "y1", "x2", "y2")


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
        several, paper = side_by_side(two_class(tested)), beside_table_xi(two_class(tested))
        text = "\n\n".join([*(each.summary() for each in tested), *several.summary(), *filter(None, [paper])])
        parts = {"predictions.csv": tested, "validation.csv": [each.validation for each in tested if each.validation]}
        tables = {k: [some[0].heads, *(row for one in some for row in one.rows())] for k, some in parts.items() if some}
        out.publish(_found([each.checkpoint for each in tested], tested, text, tables, several.to_dict()), taken)
    if diverged := [said for each in tested if (said := each.diverged()) is not None]:
        more = f" (as did {len(diverged) - 1} more)" if len(diverged) > 1 else ""
        raise ModelInputError("ckpt", f"{diverged[0]}{more}. Take a network from before that, or train it again")


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
            write_csv(folder / name, rows)

    return Found(about_checkpoints(checkpoints, data), document, text, write)


def _how(options: DataOptions) -> dict[str, Any]:
    return {"device": process_device(options.device), "batch_size": options.batch_size, "watch": tracked}


def two_class(tested: Sequence[EvaluatedClassifier]) -> list[TwoClassResult]:
    """The results of those that know two classes."""
    return [each.more for each in tested if each.more is not None]


def test_all(ckpts: Sequence[str], options: DataOptions) -> list[EvaluatedClassifier]:
    """Test every checkpoint on the same images. Raises ModelInputError for what does not exist or does not fit."""
    checkpoints = read_classifiers(ckpts)
    data = options.data or checkpoints[0].info.data
    source = open_part(options, data, "test" if data in {each.info.data for each in checkpoints} else "any")
    warn_of_color(checkpoints, source, range(len(source)))
    train = partial(open_part, replace(options, download=False, strict=False), split="train")
    found = evaluate_checkpoints(checkpoints, source, data, train, **_how(options))
    report_skipped(source.unreadable, len(source))
    return [replace(each, more=_as_test(each, source.grouping or NO_PATIENTS)) for each in found]


def _as_test(found: EvaluatedClassifier, grouping: str) -> TwoClassResult | None:
    seen, info, held = found.predictions, found.checkpoint.info, found.validation
    if len(found.classes) != 2 or seen.nonfinite:
        return None
    threshold = Threshold(HALF, f"not chosen, because {found.no_validation}")
    if held is not None:
        threshold = choose_threshold(held.predictions.positive, held.predictions.scores, held.groups)
    readings = Readings(
        name=found.name,
        network=info.model.label,
        class_names=(found.classes[0], found.classes[1]),
        image_names=seen.names,
        patients=found.groups or seen.names,
        labels=seen.positive,
        scores=seen.scores,
        threshold=threshold,
        in_training=found.in_training,
        grouping=grouping,
        image_size=info.preprocessing.size,
    )
    kind, origin = blueprint(info.model).plan.kind, Provenance(found.name, found.checkpoint.sha256, found.data)
    paper = published_accuracy("" if kind is None else kind.name, found.data, found.classes)
    return assess(readings, paper=paper, provenance=origin)
