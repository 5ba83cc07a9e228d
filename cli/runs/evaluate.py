"""dia-train eval: how well networks classify, or find objects, and for two classes how good a test they are."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cli.common.console import tracked
from cli.common.grey import warn_of_colour
from cli.common.images import data_facts, open_part, prepared_device
from cli.common.inputs import default_data, say_assumed
from cli.common.naming import network_name
from cli.common.networks import Candidate, candidates
from cli.common.options import DataOptions, NetworkOptions
from cli.common.publish import Found, Out, about_networks, report_skipped
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
from dia_models import Checkpoint, ModelInputError, OpenedNetwork
from dia_models.classification.evaluated import EvaluatedClassifier, evaluate_classifier
from dia_models.classification.held_out import TrainingImages, groups_in_both
from dia_models.data import ImageSource
from dia_models.data.detection.sets import open_scenes
from dia_models.detection.average_precision import require_scoring
from dia_models.detection.evaluated import evaluate_detector
from dia_models.factory import blueprint, task_of

BOXES = ("checkpoint", "image", "class", "score", "x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Tested:
    """A network on the test images; of two classes, also on the images that its run held out."""

    found: EvaluatedClassifier
    validation: EvaluatedClassifier | None = None
    two_class: TwoClassResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """The document dia.eval/1, but for its schema."""
        return self.found.to_dict() | ({} if self.two_class is None else self.two_class.to_dict())

    def summary(self) -> str:
        """Accuracy, per class, and for two classes everything else."""
        return "\n".join([self.found.summary(), *([] if self.two_class is None else [self.two_class.summary()])])


def evaluate(given: NetworkOptions, options: DataOptions, out: Out) -> None:
    """Test networks on all images of a data set's test part, print the scores and write them if `out` is given."""
    compared = candidates(given)
    tasks = {"classification" if not c.saved else task_of(Checkpoint.read(c.source).info.model.name) for c in compared}
    if "detection" in tasks and len(tasks) > 1:
        raise ModelInputError("ckpt", "detectors and other networks have no score in common; test them one by one")
    (evaluate_detectors if tasks == {"detection"} else evaluate_classifiers)(compared, options, out)


def evaluate_classifiers(compared: Sequence[Candidate], options: DataOptions, out: Out) -> None:
    """Raises ModelInputError at the end, when all is printed and written, if a network diverged."""
    with out.if_given() as taken:
        tested = test_all(compared, options)
        several = side_by_side(two_class(tested))
        sizes = [each.found.network.preprocessing for each in tested]
        rows = {f"{t.found.name} ({s.height}x{s.width})": t.two_class for t, s in zip(tested, sizes, strict=True)}
        paper = beside_table_xi({heading: result for heading, result in rows.items() if result is not None})
        text = "\n\n".join([*(each.summary() for each in tested), *several.summary(), *filter(None, [paper])])
        files = {"predictions.csv": [each.found for each in tested]}
        files |= {"validation.csv": held} if (held := [each.validation for each in tested if each.validation]) else {}
        tables = {name: _scores(parts) for name, parts in files.items()}
        found = _found([each.found.network for each in tested], tested, text, tables, several.to_dict())
        out.publish(found, taken)
    if diverged := [said for each in tested if (said := each.found.diverged()) is not None]:
        more = f" (as did {len(diverged) - 1} more)" if len(diverged) > 1 else ""
        raise ModelInputError("ckpt", f"{diverged[0]}{more}. Take a network from before that, or train it again")


def _scores(parts: Sequence[EvaluatedClassifier]) -> list[Sequence[Any]]:
    heads = ["checkpoint", "path", "patient", "label", *(f"score_{name}" for name in parts[0].classes)]
    return [heads, *(row for part in parts for row in part.rows())]


def evaluate_detectors(compared: Sequence[Candidate], options: DataOptions, out: Out) -> None:
    """By COCO's average precision."""
    with out.if_given() as taken:
        require_scoring()
        checkpoints = [replace(Checkpoint.read(each.source), name=each.name) for each in compared]
        data = options.data or checkpoints[0].info.data
        scenes = open_scenes(data, "test", options.data_dir, strict=options.strict)
        found = [evaluate_detector(checkpoint, scenes, data, **_how(options)) for checkpoint in checkpoints]
        report_skipped(scenes.unreadable, len(scenes))
        text = "\n\n".join(each.summary() for each in found)
        boxes = [BOXES, *(row for each in found for row in each.rows(scenes.names))]
        out.publish(_found(checkpoints, found, text, {"detections.csv": boxes}, {}), taken)


def _found(
    networks: Sequence[Checkpoint | OpenedNetwork],
    tested: Sequence[Any],
    text: str,
    tables: Mapping[str, Iterable[Any]],
    more: Any,
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

    return Found(about_networks(networks, data), document, text, write)


def _how(options: DataOptions) -> dict[str, Any]:
    return {"device": prepared_device(options.device), "batch_size": options.batch_size, "watch": tracked}


def two_class(tested: Sequence[Tested]) -> list[TwoClassResult]:
    """The results of those that know two classes."""
    return [each.two_class for each in tested if each.two_class is not None]


def test_all(compared: Sequence[Candidate], options: DataOptions) -> list[Tested]:
    """Test every network on the same images. Raises ModelInputError for what does not exist or does not fit."""
    known = {Checkpoint.read(each.source).info.data for each in compared if each.saved}
    data = options.data or default_data(compared)
    if data is None:
        raise ModelInputError("data", "none given, and no checkpoint says what its network was trained on; name some")
    source = open_part(options, data, "test" if data in known else "any")
    networks = [each.open(data_facts(each, source, data, list(range(len(source))))) for each in compared]
    first = networks[0]
    for network in networks:
        if network.outputs.words != first.outputs.words:
            message = f"{network.name} and {first.name} do not know the same classes; give networks that do"
            raise ModelInputError("ckpt", message)
    warn_of_colour(networks, source, range(len(source)))
    training = TrainingImages(lambda name: open_part(replace(options, download=False, strict=False), name, "train"))
    tested = [_test(network, source, data, options, training) for network in networks]
    report_skipped(source.unreadable, len(source))
    return tested


def _test(
    network: OpenedNetwork, source: ImageSource, data: str, options: DataOptions, training: TrainingImages
) -> Tested:
    say_assumed(network)
    seen = evaluate_classifier(network, source, data, **_how(options))
    if len(seen.classes) != 2 or seen.predictions.nonfinite:
        return Tested(seen)
    train = held = None
    if (checkpoint := network.checkpoint) is not None:
        train, held = training.of(checkpoint), training.validation_images(checkpoint)
    validation = None if held is None else evaluate_classifier(network, held, str(network.data), **_how(options))
    readings = Readings(
        name=network.name,
        network=network_name(network),
        class_names=(seen.classes[0], seen.classes[1]),
        image_names=seen.predictions.names,
        patients=seen.groups or seen.predictions.names,
        labels=seen.predictions.positive,
        scores=seen.predictions.scores,
        threshold=_threshold(train, validation),
        in_training=groups_in_both(source, train),
        grouping=source.grouping or NO_PATIENTS,
    )
    origin = Provenance(network.name, network.sha256, data)
    kind = blueprint(network.spec).plan.kind if network.spec else None
    paper = published_accuracy(kind.name if kind else "", data, seen.classes) if network.spec else None
    return Tested(seen, validation, assess(readings, paper=paper, provenance=origin))


def _threshold(train: ImageSource | None, validation: EvaluatedClassifier | None) -> Threshold:
    if validation is None:
        reason = "the training images are not there to look" if train is None else "the run held out no images"
        return Threshold(HALF, f"not chosen, because {reason}")
    return choose_threshold(validation.predictions.positive, validation.predictions.scores, validation.groups)
