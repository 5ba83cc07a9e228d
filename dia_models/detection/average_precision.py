"""How well a detector finds objects: COCO's average precision."""

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dia_models.data.detection.scenes import Objects, Scenes
from dia_models.detection.batches import read_ahead
from dia_models.errors import ModelInputError

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
AT_50, AT_75 = 0, 5  # of the overlaps 0.5, 0.55, ..., 0.95
ALL, SMALL, MEDIUM, LARGE = range(4)  # of COCO's ranges of area
MOST = -1  # of its limits of detections, the last one: in an image the 100 of a class with the highest scores

Precisions = Float[np.ndarray, "overlap recall class area limit"]
Boxes = list[dict[str, Any]]


@dataclass(frozen=True)
class Detected:
    """What a detector finds in one image: boxes as x1, y1, x2, y2 in pixels, labels and scores, on the CPU."""

    index: int
    found: dict[str, Tensor]


@dataclass(frozen=True)
class DetectionScores:
    """COCO's average precisions, fractions of 1; nan where there is no object to find.

    `ap` is the mean over classes and over overlaps (intersection over union) of 0.5, 0.55, ..., 0.95; `ap50` and `ap75`
    are at one overlap. Small objects have less than 32x32 pixels, medium ones less than 96x96. `per_class_ap` is in the
    order of the network's classes, without the background.
    """

    images: int
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    per_class_ap: tuple[float, ...]

    @property
    def scores(self) -> dict[str, float]:
        """The six numbers by name."""
        return {name: getattr(self, name) for name in NAMES}


def undefined_scores(images: int, classes: int) -> DetectionScores:
    """Those of a detector that computes no numbers."""
    return DetectionScores(images, nan, nan, nan, nan, nan, nan, (nan,) * (classes - 1))


def detect(model: nn.Module, scenes: Scenes, batch_size: int, device: torch.device) -> Iterator[list[Detected]]:
    """Show a detector every scene that can be read, in float32, batch by batch; it is left in evaluation mode."""
    model.eval()
    everything = list(range(len(scenes)))
    batches = [everything[start : start + batch_size] for start in range(0, len(scenes), batch_size)]
    for read in read_ahead(scenes, batches):
        with torch.inference_mode():
            given = model([pixels.to(device).float() / 255 for _, pixels in read]) if read else []
        yield [
            Detected(index, {name: tensor.cpu() for name, tensor in found.items()})
            for (index, _), found in zip(read, given, strict=True)
        ]


def average_precision(detected: Sequence[Detected], objects: Sequence[Objects], classes: int) -> DetectionScores:
    """COCO's scores of detections; `objects` are those of all scenes, `classes` counts the background.

    A crowd is neither to be found nor held against a detection inside it. Raises ModelInputError if pycocotools, whose
    evaluation this is, is not installed, and if there is no image.
    """
    if not detected:
        raise ModelInputError("data", "there is no image that can be read to score a detector on")
    require_scoring()
    precisions = _evaluate(detected, objects, classes)[..., MOST]
    whole = precisions[..., ALL]
    return DetectionScores(
        images=len(detected),
        ap=_mean(whole),
        ap50=_mean(whole[AT_50]),
        ap75=_mean(whole[AT_75]),
        ap_small=_mean(precisions[..., SMALL]),
        ap_medium=_mean(precisions[..., MEDIUM]),
        ap_large=_mean(precisions[..., LARGE]),
        per_class_ap=tuple(_mean(whole[:, :, label]) for label in range(classes - 1)),
    )


def _evaluate(detected: Sequence[Detected], objects: Sequence[Objects], classes: int) -> Precisions:
    """The precision at each overlap, recall, class, range of area and limit of detections; -1 without an object.

    Everything goes to COCO's evaluation in float64: its thresholds are such numbers, and a recall of 6 / 10 reaches
    0.6 only among them.
    """
    from pycocotools.cocoeval import COCOeval

    truth = [box for each in detected for box in _boxes_there(each.index, objects[each.index])]
    found = [box for each in detected for box in _boxes_found(each)]
    with redirect_stdout(io.StringIO()):  # it tells what it does
        images = [each.index for each in detected]
        evaluation = COCOeval(_coco(images, truth, classes), _coco(images, found, classes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precisions: Precisions = evaluation.eval["precision"]
    return precisions


def _coco(images: Sequence[int], boxes: Boxes, classes: int) -> Any:
    from pycocotools.coco import COCO

    data = COCO()
    data.dataset = {
        "images": [{"id": index} for index in images],
        "categories": [{"id": label} for label in range(1, classes)],
        "annotations": [{"id": number, **box} for number, box in enumerate(boxes, 1)],  # from 1: 0 is "none" to it
    }
    data.createIndex()
    return data


def _boxes_there(index: int, objects: Objects) -> Boxes:
    of_each = zip(_corner_and_size(objects.boxes), objects.labels.tolist(), objects.areas.double().tolist(),
                  objects.crowd.tolist(), strict=True)  # fmt: skip
    return [
        {"image_id": index, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for box, label, area, crowd in of_each
    ]


def _boxes_found(detected: Detected) -> Boxes:
    labels, scores = detected.found["labels"].tolist(), detected.found["scores"].double().tolist()
    return [
        {
            "image_id": detected.index,
            "category_id": label,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "score": score,
        }
        for box, label, score in zip(_corner_and_size(detected.found["boxes"]), labels, scores, strict=True)
    ]


def _corner_and_size(boxes: Float[Tensor, "box 4"]) -> list[list[float]]:
    corners = boxes.double()
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()


def _mean(precisions: Float[np.ndarray, "..."]) -> float:
    """Over all that have an object to find; nan if none has."""
    known = precisions[precisions > -1]
    return float(known.mean()) if known.size else nan


def require_scoring() -> None:
    """Raise ModelInputError if pycocotools is not installed."""
    try:
        import pycocotools  # noqa: F401
    except ImportError as error:
        raise ModelInputError(
            "data", "scoring a detector needs pycocotools; pip install 'dia-analysis[detection]'"
        ) from error
