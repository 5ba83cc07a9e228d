"""Scores of a two-class test, few enough to count by hand."""

import numpy as np

from dia_analysis.xray.diagnosis import (
    Readings,
    Threshold,
)

LABELS = np.array([False, False, True, True, True, True])
SCORES = np.array([0.1, 0.6, 0.9, 0.4, 0.7, 0.2])
PATIENTS = ("a", "b", "c", "c", "d", "e")


def readings(name="net", scores=SCORES, threshold=0.3, in_training=frozenset({"c"}), **changes):
    given = {
        "name": name,
        "network": "resnet",
        "class_names": ("NORMAL", "PNEUMONIA"),
        "image_names": tuple(f"{i}.png" for i in range(6)),
        "patients": PATIENTS,
        "labels": LABELS,
        "scores": scores,
        "threshold": Threshold(threshold, "planted"),
        "in_training": in_training,
    }
    return Readings(**given | changes)
