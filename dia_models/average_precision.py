"""How well a detector finds objects: COCO's average precision."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from torch import Tensor, nn

from dia_models.data.scenes import Objects, Scenes
from dia_models.errors import ModelInputError
from dia_models.scene_batches import read_ahead

DETECTIONS = 100  # of an image, those with the highest scores, as COCO does
NAMES = {"ap": "map", "ap50": "map_50", "ap75": "map_75", "ap_small": "map_small", "ap_medium": "map_medium",
         "ap_large": "map_large"}  # fmt: skip


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
    metric = _metric()
    metric.update([each.found for each in detected], [_target(objects[each.index]) for each in detected])
    found = metric.compute()
    labels, precisions = (found[name].reshape(-1).tolist() for name in ("classes", "map_per_class"))
    of_class = dict(zip(labels, precisions, strict=True))
    scores = {ours: _defined(float(found[theirs])) for ours, theirs in NAMES.items()}
    per_class = tuple(_defined(of_class.get(label, nan)) for label in range(1, classes))
    return DetectionScores(images=len(detected), per_class_ap=per_class, **scores)


def _metric() -> Any:
    require_scoring()
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(class_metrics=True, max_detection_thresholds=[1, 10, DETECTIONS])
    metric.warn_on_many_detections = False
    return metric


def require_scoring() -> None:
    """Raise ModelInputError if pycocotools is not installed."""
    try:
        import pycocotools  # noqa: F401
    except ImportError as error:
        raise ModelInputError(
            "data", "scoring a detector needs pycocotools; pip install 'dia-analysis[detection]'"
        ) from error


def _target(objects: Objects) -> dict[str, Tensor]:
    return {
        "boxes": objects.boxes,
        "labels": objects.labels,
        "iscrowd": objects.crowd.long(),
        "area": objects.areas,
    }


def _defined(value: float) -> float:
    """COCO's evaluation says -1 where there is nothing to find."""
    return nan if value < 0 else value
