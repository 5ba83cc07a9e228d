"""Table XI: the accuracies that the paper prints of its ResNet50s on the chest X-rays of Kermany et al. 2018."""

from collections.abc import Sequence
from typing import Any

from dia_analysis.statistics.intervals import percent
from dia_analysis.xray.diagnosis import TwoClassResult

CLASSES = ("NORMAL", "PNEUMONIA")
TABLE_XI = {  # accuracy in percent by the kind of attention: pneumonia, normal, all
    "": (97.8, 52.5, 81.4),
    "se": (99.2, 60.8, 85.3),
    "dia_lstm": (99.4, 71.1, 89.2),
    "dia_lstm_light": (99.4, 63.7, 86.6),
}


def published_accuracy(attention: str, data: str | None, classes: Sequence[str]) -> dict[str, Any] | None:
    """The paper's accuracies (percent) of its ResNet50 with this attention (empty: none); None if it has none.

    They are of the data set chest-xray and stand beside the results on no other.
    """
    if data != "chest-xray" or tuple(classes) != CLASSES or attention not in TABLE_XI:
        return None
    numbers = dict(zip((*reversed(CLASSES), "all"), TABLE_XI[attention], strict=True))
    return {"network": "-".join(filter(None, ("ResNet50", attention))), "image_size": 224, **numbers}


def beside_table_xi(results: Sequence[TwoClassResult]) -> str | None:
    """Accuracy by class as in Table XI, with the paper's network below each of ours that it has one for."""
    lines: list[tuple[str, ...]] = [("Table XI, accuracy in %", "PNEUMONIA", "NORMAL", "all")]
    for result in results:
        if (published := result.paper) is not None:
            half = result.everyone.half
            size = result.readings.image_size
            heading = result.readings.name + ("" if size is None else f" ({size[0]}x{size[1]})")
            lines.append((heading, *map(percent, (half.sensitivity, half.specificity, half.accuracy))))
            theirs = [f"{published[name]:.1f}" for name in (*reversed(CLASSES), "all")]
            lines.append((f"  paper: {published['network']} (224x224)", *theirs))
    if len(lines) == 1:
        return None
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in lines]
    return "\n".join(
        [*aligned, "The paper's networks are ResNet50 on larger images; its numbers come without intervals."]
    )
