"""dia-train eval for detectors: COCO's average precision."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

from cli.common.console import note, tracked
from cli.common.naming import read_named
from cli.common.publish import Found, Out
from cli.runs.predictions import Options
from dia_analysis import Provenance
from dia_analysis.results.output import write_json
from dia_analysis.results.words import quantity
from dia_models import Checkpoint, ModelInputError
from dia_models.data.detection.scenes import Scenes
from dia_models.data.detection.sets import open_scenes
from dia_models.detection.average_precision import Detected, DetectionScores, average_precision, detect, require_scoring
from dia_models.factory import task_of
from dia_models.training.device import choose_device
from dia_models.training.machine import in_words

LARGEST_BATCH = 16  # images of a detector take much memory
TITLES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP_S", "ap_medium": "AP_M", "ap_large": "AP_L"}


@dataclass(frozen=True)
class Scored:
    """A detector, what it finds in the test images, and how well."""

    checkpoint: Checkpoint
    data: str
    detected: list[Detected]
    scores: DetectionScores

    def to_dict(self) -> dict[str, Any]:
        """The document dia.eval/1, but for its schema; null where there is no object to find."""
        info = self.checkpoint.info
        return {
            "checkpoint": self.checkpoint.name,
            "checkpoint_sha256": self.checkpoint.sha256,
            "network": info.model.name,
            "training_seed": info.seed,
            "machine": None if info.machine is None else info.machine.model_dump(),
            "data": self.data,
            "images": self.scores.images,
            **{name: _number(value) for name, value in self.scores.scores.items()},
            "per_class_ap": dict(zip(info.classes[1:], map(_number, self.scores.per_class_ap), strict=True)),
        }

    def summary(self) -> str:
        """The six numbers in percent, and AP by class."""
        numbers = ", ".join(f"{TITLES[name]} {_percent(value)}" for name, value in self.scores.scores.items())
        lines = [
            f"{self.checkpoint.name} on {quantity(self.scores.images, 'image')} of {self.data}, in percent: {numbers}"
        ]
        lines.append(f"  precision in training: {in_words(self.checkpoint.info.machine)}")
        for name, value in zip(self.checkpoint.info.classes[1:], self.scores.per_class_ap, strict=True):
            lines.append(f"  {name:<20} {_percent(value)}")
        return "\n".join(lines)


def are_detectors(ckpts: Sequence[str]) -> bool:
    """Whether these checkpoints hold detectors. Raises ModelInputError if some do and some do not."""
    found = {task_of(Checkpoint.read(ckpt).info.model.name) == "detection" for ckpt in ckpts}
    if len(found) > 1:
        raise ModelInputError("ckpt", "detectors and other networks have no score in common; test them one by one")
    return found == {True}


def evaluate_detectors(ckpts: Sequence[str], data: str | None, options: Options, *, out: Out, as_json: bool) -> None:
    """Score detectors on all images of a data set's test part, print that and write it if `out` is given."""
    with out.if_given() as taken:
        require_scoring()
        checkpoints = read_named(ckpts)
        data = data or checkpoints[0].info.data
        scenes = open_scenes(data, "test", options.data_dir, strict=options.strict)
        scored = [_score(checkpoint, data, scenes, options) for checkpoint in checkpoints]
        for name, reason in sorted(scenes.unreadable.items()):
            note(f"warning: skipped {name}: {reason}")
        _found(scored, scenes).publish(taken, as_json=as_json)


def _found(scored: Sequence[Scored], scenes: Scenes) -> Found:
    data, each = scored[0].data, [one.to_dict() for one in scored]
    document = {"schema": "dia.eval/1", **(each[0] if len(each) == 1 else {"data": data, "evaluations": each})}
    models = [{"name": s.checkpoint.name, "checkpoint_sha256": s.checkpoint.sha256} for s in scored]
    about = {**replace(Provenance(), data=data, seed=0).to_dict(), "models": models}
    text = "\n\n".join(one.summary() for one in scored)
    return Found(about, document, text, lambda folder: _write(scored, document, scenes, folder))


def _score(checkpoint: Checkpoint, data: str, scenes: Scenes, options: Options) -> Scored:
    classes = checkpoint.info.classes
    if classes != scenes.classes:
        raise ModelInputError(
            "data",
            f"{data} has other classes than {checkpoint.name} was trained on: {_few(scenes.classes)} instead of "
            f"{_few(classes)}",
        )
    where, size = choose_device(options.device), min(options.batch_size, LARGEST_BATCH)
    batches = detect(checkpoint.build().to(where), scenes, size, where)
    shown = tracked(batches, -(-len(scenes) // size), checkpoint.name)
    detected = [one for batch in shown for one in batch]
    return Scored(checkpoint, data, detected, average_precision(detected, scenes.objects, len(classes)))


def _few(classes: Sequence[str]) -> str:
    return ", ".join(classes[1:6]) + (", ..." if len(classes) > 6 else "")


def _write(scored: Sequence[Scored], document: dict[str, Any], scenes: Scenes, folder: Path) -> None:
    write_json(folder / "eval.json", document)
    with (folder / "detections.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["checkpoint", "image", "class", "score", "x1", "y1", "x2", "y2"])
        for one in scored:
            writer.writerows(row for each in one.detected for row in _rows(one.checkpoint, each, scenes))


def _rows(checkpoint: Checkpoint, detected: Detected, scenes: Scenes) -> list[tuple[Any, ...]]:
    found = (detected.found[name].tolist() for name in ("labels", "scores", "boxes"))
    name, classes = scenes.names[detected.index], checkpoint.info.classes
    return [
        (checkpoint.name, name, classes[label], round(score, 5), *(round(side, 2) for side in box))
        for label, score, box in zip(*found, strict=True)
    ]


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def _percent(value: float) -> str:
    return "–" if isnan(value) else f"{100 * value:.1f}"
