"""Fig. 2's readings side by side: each is the number it is named for; some are high whatever the order of channels."""

import pytest
import torch

from dia_analysis import measure_correlation
from dia_analysis.correlation.similarity_names import READINGS
from dia_analysis.paper.untrained import Baseline, BesideUntrained
from tests.support.gates import Gates, of_maps

pytestmark = pytest.mark.numeric


def measured(seed):
    torch.manual_seed(seed)
    return measure_correlation(Gates(3), torch.sigmoid(torch.randn(9, 3, 40)).split(4), similarity=READINGS)


@pytest.fixture(scope="module")
def outcome():
    return BesideUntrained(measured(0), Baseline(measured(1), "random", None, True))


def test_every_reading_is_the_number_that_it_is_named_for(outcome):
    rows = {row.reading: row for row in outcome.readings()}
    stage = outcome.trained.stages[0].readings
    assert rows["r, image by image"].trained == stage.numbers["mean_r"]
    assert rows["r, all images pooled"].trained == stage.numbers["pooled_r"]
    assert rows["cosine, not centered"].trained == stage.similarities["cosine"].mean
    assert rows["r of logits"].trained == stage.similarities["logit"].mean
    matrix = outcome.trained.stages[0].matrix
    neighbors = (matrix[0, 1] + matrix[1, 2]) / 2
    assert rows["r, neighboring layers"].trained.value == pytest.approx(neighbors)
    assert rows["r, image by image"].before == outcome.before.result.stages[0].readings.numbers["mean_r"]


def test_unrelated_gates_are_alike_in_the_readings_that_measure_their_spread(outcome):
    rows = {row.reading: row for row in outcome.readings()}
    for name in ("r of maps sorted by size", "cosine, not centered"):
        assert rows[name].trained.value > 0.8
        assert rows[name].chance > 0.8
    assert abs(rows["r, image by image"].chance) < 0.05


def test_they_stand_in_the_text_and_the_document_only_where_they_were_measured(outcome):
    assert "Fig. 2 in several readings:" in outcome.summary()
    first = outcome.to_dict()["readings"][0]
    assert (first["reading"], first["stage"], first["untrained_reestimated"]) == ("r, image by image", 1, None)
    without = BesideUntrained(of_maps(torch.randn(5, 3, 8)))
    assert without.to_dict()["readings"] == []
    assert "readings" not in without.summary()
