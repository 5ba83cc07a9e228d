"""dia-train eval for detectors: COCO's average precision."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.common.console import tracked
from cli.common.images import prepared_device
from cli.common.naming import read_named
from cli.common.options import DataOptions
from cli.common.publish import Found, Out, about_checkpoints, report_skipped
from dia_analysis.results.output import write_json
from dia_models import Checkpoint, ModelInputError
from dia_models.data.detection.sets import open_scenes
from dia_models.detection.average_precision import require_scoring
from dia_models.detection.evaluated import EvaluatedDetector, evaluate_detector
from dia_models.factory import task_of

HEADS = ("checkpoint", "image", "class", "score", "x1", "y1", "x2", "y2")


def are_detectors(ckpts: Sequence[str]) -> bool:
    """Whether these checkpoints hold detectors. Raises ModelInputError if some do and some do not."""
    found = {task_of(Checkpoint.read(ckpt).info.model.name) == "detection" for ckpt in ckpts}
    if len(found) > 1:
        raise ModelInputError("ckpt", "detectors and other networks have no score in common; test them one by one")
    return found == {True}


def evaluate_detectors(ckpts: Sequence[str], options: DataOptions, out: Out) -> None:
    """Score detectors on all images of a data set's test part, print that and write it if `out` is given."""
    with out.if_given() as taken:
        require_scoring()
        checkpoints = read_named(ckpts)
        data = options.data or checkpoints[0].info.data
        scenes = open_scenes(data, "test", options.data_dir, strict=options.strict)
        how: Any = {"device": prepared_device(options.device), "batch_size": options.batch_size, "watch": tracked}
        found = [evaluate_detector(checkpoint, scenes, data, **how) for checkpoint in checkpoints]
        report_skipped(scenes.unreadable, len(scenes))
        document, text = _document(found), "\n\n".join(each.summary() for each in found)

        def write(folder: Path) -> None:
            write_json(folder / "eval.json", document)
            with (folder / "detections.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([HEADS, *(row for each in found for row in each.rows(scenes.names))])

        out.publish(Found(about_checkpoints(checkpoints, data), document, text, write), taken)


def _document(found: Sequence[EvaluatedDetector]) -> dict[str, Any]:
    each = [one.to_dict() for one in found]
    return {"schema": "dia.eval/1", **(each[0] if len(each) == 1 else {"data": found[0].data, "evaluations": each})}
