"""dia-train eval: how well networks classify, or find objects, and for two classes how good a test they are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cli.common.console import tracked
from cli.common.images import chosen_data, open_part
from cli.common.inputs import default_data, say_assumed, warn_of_color
from cli.common.networks import Candidate, candidates
from cli.common.options import DataOptions, NetworkOptions
from cli.common.publish import Found, Out, about_networks, report_skipped
from dia_analysis import Provenance
from dia_analysis.paper.table_xi import beside_table_xi, published_accuracy
from dia_analysis.results.output import file_name, write_csv, write_json
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
from dia_analysis.xray.findings import (
    FindingReadings,
    FindingsResult,
    assess_findings,
    compare_findings,
    summarize_differences,
)
from dia_models import Checkpoint, ModelInputError, OpenedNetwork
from dia_models.classification.evaluated import EvaluatedClassifier
from dia_models.classification.evaluated import evaluate_classifiers as evaluate_networks
from dia_models.classification.findings import EvaluatedFindings, evaluate_findings
from dia_models.data import ImageSource
from dia_models.data.detection.sets import open_scenes
from dia_models.data.labels import has_rows
from dia_models.data.selection import Selection
from dia_models.detection.average_precision import require_scoring
from dia_models.detection.evaluated import evaluate_detector
from dia_models.factory import blueprint, task_of
from dia_models.training.device import process_device

BOXES = ("checkpoint", "image", "class", "score", "x1", "y1", "x2", "y2")


def evaluate(given: NetworkOptions, options: DataOptions, out: Out) -> None:
    """Test networks on all images of a data set's test part, print the scores and write them if `out` is given."""
    compared = candidates(given)
    found = {each.saved and task_of(Checkpoint.read(each.source).info.model.name) == "detection" for each in compared}
    if len(found) > 1:
        raise ModelInputError("ckpt", "detectors and other networks have no score in common; test them one by one")
    (evaluate_detectors if found == {True} else evaluate_classifiers)(compared, options, out)


def evaluate_classifiers(compared: Sequence[Candidate], options: DataOptions, out: Out) -> None:
    """By accuracy; of two classes as a test, of many findings each by itself.

    Raises ModelInputError at the end, when all is printed and written, if a network diverged.
    """
    with out.if_given() as taken:
        shown = open_images(compared, options)
        if has_rows(shown.source):
            out.publish(_findings(shown, options), taken, shown.source)
            return
        tested = test_all(shown, options)
        several, paper = side_by_side(two_class(tested)), beside_table_xi(two_class(tested))
        text = "\n\n".join([*(each.summary() for each in tested), *several.summary(), *filter(None, [paper])])
        parts = {"predictions.csv": tested, "validation.csv": [each.validation for each in tested if each.validation]}
        tables = {k: [some[0].heads, *(row for one in some for row in one.rows())] for k, some in parts.items() if some}
        found = _found([each.network for each in tested], tested, text, tables, several.to_dict())
        out.publish(found, taken, shown.source)
    if diverged := [said for each in tested if (said := each.diverged()) is not None]:
        more = f" (as did {len(diverged) - 1} more)" if len(diverged) > 1 else ""
        raise ModelInputError("ckpt", f"{diverged[0]}{more}. Take a network from before that, or train it again")


def _findings(shown: "ShownImages", options: DataOptions) -> Found:
    """How well networks tell each of many findings, and of several which tells it better."""
    tested = [_assessed(evaluate_findings(each, shown.source, shown.data, **_how(options))) for each in shown.networks]
    report_skipped(shown.source.unreadable, len(shown.source))
    differences = compare_findings([each.more for each in tested])
    text = "\n\n".join(
        [*(each.summary() for each in tested), *([summarize_differences(differences)] if differences else [])]
    )
    rows = [tested[0].heads, *(row for each in tested for row in each.rows())]
    more = {"comparisons": [each.to_dict() for each in differences]}
    found = _found(shown.networks, tested, text, {"predictions.csv": rows}, more)
    return found.beside(lambda folder: _write_pictures(folder, [each.more for each in tested]))


def _write_pictures(folder: Path, results: Sequence[FindingsResult]) -> None:
    from dia_analysis.results.style import save_figure  # late: it loads matplotlib

    for result in results:
        if (figure := result.figure()) is not None:
            name = file_name(result.readings.name).replace(".", "-")  # what follows a dot is taken for a suffix
            save_figure(figure, folder / f"auroc-{name}")


def _assessed(found: EvaluatedFindings) -> EvaluatedFindings:
    readings = FindingReadings(
        name=found.name,
        findings=found.findings,
        image_names=found.names,
        patients=found.groups or found.names,
        labels=found.labels.double().numpy(),
        scores=found.scores.numpy(),
        scale=found.scale,
        unmatched=found.unmatched,
        grouping=found.grouping or NO_PATIENTS,
    )
    origin = Provenance(found.name, found.network.sha256, found.data)
    return replace(found, more=assess_findings(readings, provenance=origin))


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
    """The document dia.eval/1: of one network its numbers, of several a list of these and `more`."""
    each = [one.to_dict() for one in tested]
    data = each[0]["data"]
    document = {"schema": "dia.eval/1", **(each[0] if len(each) == 1 else {"data": data, "evaluations": each, **more})}

    def write(folder: Path) -> None:
        write_json(folder / "eval.json", document)
        for name, rows in tables.items():
            write_csv(folder / name, rows)

    return Found(about_networks(networks, data), document, text, write)


def _how(options: DataOptions) -> dict[str, Any]:
    return {"device": process_device(options.device), "batch_size": options.batch_size, "watch": tracked}


def two_class(tested: Sequence[EvaluatedClassifier]) -> list[TwoClassResult]:
    """The results of those that know two classes."""
    return [each.more for each in tested if each.more is not None]


@dataclass(frozen=True)
class ShownImages:
    """All images of a data set's part, and the networks that are to see them."""

    data: str
    source: ImageSource
    networks: list[OpenedNetwork]


def open_images(compared: Sequence[Candidate], options: DataOptions) -> ShownImages:
    """Open the images and the networks. Raises ModelInputError for what does not exist."""
    data = chosen_data(options, default_data(compared))
    known = {Checkpoint.read(each.source).info.data for each in compared if each.saved}
    source = open_part(options, data, "test" if data in known else "any")
    every = Selection(data, source, list(range(len(source))), "all", options.batch_size, options.seed)
    networks = [each.open(each.facts(every)) for each in compared]
    for network in networks:
        say_assumed(network)
    warn_of_color(networks, source, every.chosen)
    return ShownImages(data, source, networks)


def test_all(shown: ShownImages, options: DataOptions) -> list[EvaluatedClassifier]:
    """Test every network on the same images. Raises ModelInputError for what does not fit."""
    source, train = shown.source, partial(open_part, replace(options, download=False, strict=False), split="train")
    found = evaluate_networks(shown.networks, source, shown.data, train, **_how(options))
    report_skipped(source.unreadable, len(source))
    return [replace(each, more=_as_test(each, source.grouping or NO_PATIENTS)) for each in found]


def _as_test(found: EvaluatedClassifier, grouping: str) -> TwoClassResult | None:
    seen, network, held = found.predictions, found.network, found.validation
    if len(found.classes) != 2 or seen.nonfinite:
        return None
    threshold = Threshold(HALF, f"not chosen, because {found.no_validation}")
    if held is not None:
        threshold = choose_threshold(held.predictions.positive, held.predictions.scores, held.groups)
    readings = Readings(
        name=found.name,
        network=network.label,
        class_names=(found.classes[0], found.classes[1]),
        image_names=seen.names,
        patients=found.groups or seen.names,
        labels=seen.positive,
        scores=seen.scores,
        threshold=threshold,
        in_training=found.in_training,
        grouping=grouping,
        image_size=network.preprocessing.size,
    )
    kind = blueprint(network.spec).plan.kind if network.spec else None
    paper = published_accuracy(kind.name if kind else "", found.data, found.classes) if network.spec else None
    origin = Provenance(found.name, network.sha256, found.data)
    return assess(readings, paper=paper, provenance=origin)
