"""What is said of a folded network: within the allowed drop only where the images show it."""

from math import sqrt
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dia_analysis import FoldingResult, Subject, measure_cost
from dia_analysis.folding.results import AFTER, BEFORE, EVERY
from dia_models import create_model

FATES = [
    SimpleNamespace(stage=1, number=1, name="a.gate", call=0, outcome="removed", into="a.norm", reason=""),
    SimpleNamespace(stage=1, number=2, name="b.gate", call=0, outcome="as it was", into="", reason=""),
]


def folding(images, wrong=(0, 0, 0), *, tested=True):
    """Two layers, of which one is folded; `wrong` images with none, one and both folded."""
    right = [torch.arange(images) >= count for count in wrong]
    steps = [
        SimpleNamespace(stage=1, number=n, validation=r, test=r if tested else None) for n, r in enumerate(right[1:], 1)
    ]
    return SimpleNamespace(
        fates=FATES,
        greedy=steps,
        random=steps,
        chosen=1,
        max_accuracy_drop=0.005,
        validation=right[0],
        test=right[0] if tested else None,
        test_after=right[1] if tested else None,
        mean_images=7,
        deviation=1e-7,
        seed=0,
    )


def test_no_change_is_within_the_drop_only_with_enough_images():
    """Without a change, Bonett and Price's interval reaches 1.96 √2 / (n + 2): half a point takes 553 images."""
    few, many = (FoldingResult.of(folding(n), "net") for n in (300, 1000))
    assert many.change.low == pytest.approx(-1.959964 * sqrt(2) / 1002)
    assert (few.is_within, many.is_within) == (False, True)
    assert many.finding() == (
        "Folding 1 of 2 gates changes the accuracy by +0.0 [-0.3, +0.3] points on 1000 test images: within the allowed "
        "drop of 0.5 points."
    )
    assert few.finding().endswith("a drop within the allowed 0.5 points is not shown with 300 test images.")


def test_images_that_chose_the_layers_do_not_judge_them():
    result = FoldingResult.of(folding(1000, tested=False), "net")
    assert not result.is_within
    assert "on 1000 validation images, on which they were chosen" in result.finding()


def test_the_curve_counts_from_no_layer_folded():
    result = FoldingResult.of(folding(10, (0, 1, 5)), "net")
    curve = result.to_dict()["curve"]["chosen"]
    assert [(point["folded"], point["layer"], point["accuracy"]) for point in curve] == [
        (0, None, 1.0),
        (1, [1, 1], 0.9),
        (2, [1, 2], 0.5),
    ]
    np.testing.assert_array_equal(result.datasets()["folding"]["accuracy"].sel(order="random"), [1.0, 0.9, 0.5])
    assert result.change.value == pytest.approx(-0.1)


def test_what_is_saved_is_the_share_of_what_all_gates_cost():
    images = torch.randn(1, 3, 8, 8)
    models = {BEFORE: "cifar_resnet11_se", AFTER: "cifar_resnet11", EVERY: "cifar_resnet11"}
    subjects = {name: Subject(create_model(model), images, BEFORE) for name, model in models.items()}
    result = FoldingResult.of(folding(10), "net", measure_cost(subjects, rounds=6))
    assert (result.saved()["parameters"], result.saved()["flops"]) == (1, 1)
    assert result.saving().startswith("It saves 100 % of their parameters and 100 % of their FLOPs; a pass takes ")
    assert "folded into a.norm" in result.summary()
